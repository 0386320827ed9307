"""Prefect and MLflow answer to those who have the password, and a run is told before it starts."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

import pytest
from layerwright_process import layerwright
from tiny_checkpoint import write_tiny_inputs

from layerwright.infra.stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]


@pytest.mark.parametrize(
    ("server", "path"),
    [
        ("PREFECT_API_URL", "/hello"),
        ("MLFLOW_TRACKING_URI", "/api/2.0/mlflow/experiments/search?max_results=1"),
        ("MLFLOW_TRACKING_URI", "/api/2.0/mlflow-artifacts/artifacts"),
    ],
)
def test_without_a_password_nothing_is_answered(stack: Stack, server: str, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(stack.environment[server] + path, timeout=30)
    assert refused.value.code == 401


@pytest.mark.parametrize(
    ("changed", "server"),
    [
        ({"PREFECT_API_AUTH_STRING": "layerwright:guessed"}, "Prefect"),
        ({"MLFLOW_TRACKING_PASSWORD": "guessed"}, "MLflow"),
    ],
)
def test_a_wrong_password_is_told_before_the_run(
    stack: Stack, command: tuple[str, ...], tmp_path: Path, changed: dict[str, str], server: str
) -> None:
    write_tiny_inputs(tmp_path)
    environment = stack.environment | changed | {"LAYERWRIGHT_HOME": str(tmp_path / "home")}
    result = layerwright(
        "convert", "recipe.yaml", *command, cwd=tmp_path, begun=True, **environment
    )
    assert result.returncode == 2, result.stderr
    assert f"the {server} server at http://127.0.0.1:" in result.stderr
    assert "rejected our credentials" in result.stderr
    assert "guessed" not in result.stderr
    assert "Traceback" not in result.stderr


def test_doctor_looks_at_the_whole_stack(stack: Stack, tmp_path: Path) -> None:
    with_all = layerwright("doctor", cwd=tmp_path, begun=True, **stack.environment)
    assert with_all.returncode == 0, with_all.stdout + with_all.stderr
    for server in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
        assert f"{stack.environment[server]} answers" in with_all.stdout
    wrong = stack.environment | {"MLFLOW_TRACKING_PASSWORD": "guessed"}
    without = layerwright("doctor", cwd=tmp_path, begun=True, **wrong, COLUMNS="200")
    assert without.returncode == 1
    assert "rejected our credentials" in without.stdout
