"""Servers that do not answer, or not to us, are told before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from layerwright_process import SERVER, layerwright
from tiny_checkpoint import write_tiny_inputs

NOBODY = "http://127.0.0.1:9"


def test_a_prefect_server_that_wants_another_password(tmp_path: Path) -> None:
    write_tiny_inputs(tmp_path)
    server = SERVER | {"PREFECT_API_AUTH_STRING": "layerwright:guessed"}
    result = layerwright("convert", "recipe.yaml", cwd=tmp_path, **server)
    assert result.returncode == 2, result.stderr
    assert (
        f"the Prefect server at {SERVER['PREFECT_API_URL']} rejected our credentials"
        in result.stderr
    )
    assert "PREFECT_API_AUTH_STRING" in result.stderr
    assert "guessed" not in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("on_pools", [False, True])
def test_no_prefect_server_at_the_address(tmp_path: Path, on_pools: bool) -> None:
    write_tiny_inputs(tmp_path)
    pools = ("--set", "compute.default={where: pool, pool: gpu}") if on_pools else ()
    server = {"PREFECT_API_URL": f"{NOBODY}/api", "PREFECT_CLIENT_MAX_RETRIES": "0"}
    result = layerwright("convert", "recipe.yaml", *pools, cwd=tmp_path, **server)
    assert result.returncode == 1, result.stderr
    assert f"the Prefect server at {NOBODY}/api does not answer" in result.stderr
    assert "Traceback" not in result.stderr


def test_no_mlflow_server_at_the_address(tmp_path: Path) -> None:
    write_tiny_inputs(tmp_path)
    settings = ("store=s3://bucket/store", f"registry.tracking_uri={NOBODY}")
    result = layerwright(
        "convert", "recipe.yaml", *(part for one in settings for part in ("--set", one)),
        cwd=tmp_path, MLFLOW_HTTP_REQUEST_MAX_RETRIES="0",
    )  # fmt: skip
    assert result.returncode == 1, result.stderr
    assert f"MLflow at {NOBODY}: " in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / ".layerwright" / "runs").exists()
