"""Servers that end by force in the middle of a run, and two runs that want the same at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from stack.driving import accepted, kill_family, training_run, until

from layerwright.infra.stack import PARTS, Stack

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]


@pytest.mark.parametrize("server", ["prefect", "mlflow", "postgres"])
def test_a_run_outlives_a_server(
    stack: Stack, command: tuple[str, ...], tmp_path: Path, server: str
) -> None:
    run = training_run(stack, command, tmp_path, steps=400, name=f"tiny-lost-{server}")
    until(run, "finetune step 20 of 400")
    kill_family(stack.processes.alive(server))
    getattr(stack, f"start_{server}")(list(PARTS))
    said = accepted(run)
    assert "finetune step 10 of 400" not in said, "nothing was done twice"


def test_two_runs_of_the_same_at_once_share_the_work(
    stack: Stack, command: tuple[str, ...], tmp_path: Path
) -> None:
    training = {"steps": 100, "name": "tiny-twice"}
    runs = [
        training_run(stack, (*command, "--home", home), tmp_path, **training)
        for home in ("one", "other")
    ]
    done = [run.communicate() for run in runs]
    assert [run.returncode for run in runs] == [0, 0], [said for _, said in done]
    first, second = (json.loads(output.splitlines()[-1]) for output, _ in done)
    assert first["checkpoint"] == second["checkpoint"]
    assert ("finetune" in first["cache_hits"]) != ("finetune" in second["cache_hits"])
    for one, other in ((first, second), (second, first)):
        assert one["registered"]["version"] == other["registered"]["version"] == "1"
