"""A deployment through both pools, on PostgreSQL and S3; and what happens when parts are killed."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from stack.driving import accepted, challenger, kill_family, prefect, training_run, until
from tiny_checkpoint import write_tiny_inputs

from layerwright.infra.stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]


def test_a_deployment_ends_as_challenger_with_its_artifacts_in_s3(
    stack: Stack, command: tuple[str, ...], tmp_path: Path
) -> None:
    recipe = write_tiny_inputs(tmp_path)
    settings = list(command[1::2])
    prefect(
        stack, "deployment", "run", "convert/scheduled", "--watch",
        "--param", f"recipe={json.dumps(str(recipe))}",
        "--param", f"assignments={json.dumps(settings)}",
    )  # fmt: skip
    version = challenger(stack, "tiny-hybrid")
    assert version.source.startswith("s3://layerwright/store/trees/")
    assert version.tags["layerwright.decision"] == "accepted"


def test_a_step_outlives_its_worker(stack: Stack, command: tuple[str, ...], tmp_path: Path) -> None:
    run = training_run(stack, command, tmp_path, steps=400, name="tiny-lost-worker")
    until(run, "finetune step 20 of 400")
    kill_family(stack.processes.alive("worker-gpu"))
    stack.start_worker("gpu", "worker-gpu")
    said = accepted(run)
    assert "finetune step 10 of 400" not in said, "it went on from the last training state"


def test_a_cancelled_run_takes_its_children_along(
    stack: Stack, command: tuple[str, ...], tmp_path: Path
) -> None:
    run = training_run(stack, command, tmp_path, steps=4000, name="tiny-cancelled")
    until(run, "finetune step 10 of 4000")
    run.send_signal(signal.SIGINT)
    assert run.wait(60) == 130
    worker = stack.processes.alive("worker-gpu")
    assert worker is not None
    end = time.monotonic() + 90
    while [c for c in worker.children(recursive=True) if "prefect" in " ".join(c.cmdline())]:
        assert time.monotonic() < end, "the child flow's process is still there"
        time.sleep(1)


def test_a_killed_parent_finds_its_child_again(
    stack: Stack, command: tuple[str, ...], tmp_path: Path
) -> None:
    training = {"steps": 300, "name": "tiny-lost-parent"}
    run = training_run(stack, command, tmp_path, **training)
    until(run, "finetune step 10 of 300")
    os.kill(run.pid, signal.SIGKILL)
    run.communicate()
    said = accepted(training_run(stack, command, tmp_path, **training))
    assert said.count("finetune step 10 of 300") == 1, "the same child, and its log from the start"
