"""A deployment through both pools, on PostgreSQL and S3; and what happens when parts are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from layerwright_process import COMMAND, environment
from tiny_checkpoint import write_tiny_inputs

from infra.stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]


def started(
    stack: Stack, command: tuple[str, ...], cwd: Path, name: str = "convert"
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, name, "recipe.yaml", "--json", *command],
        cwd=cwd,
        env=environment(OMP_NUM_THREADS="1", **stack.environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell that started the tests in the background had it ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def until(process: subprocess.Popen[str], marker: str) -> str:
    """What the process said on stderr up to the line that has ``marker``."""
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if marker in line:
            return "".join(seen)
    raise AssertionError(f"{marker!r} never came:\n{''.join(seen)}")


def kill_family(process: psutil.Process) -> None:
    for member in [process, *process.children(recursive=True)]:
        member.send_signal(signal.SIGKILL)


def prefect(stack: Stack, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "prefect", *arguments],
        env=environment(**stack.environment), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


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
    from mlflow.tracking import MlflowClient

    client = MlflowClient(stack.environment["MLFLOW_TRACKING_URI"])
    version = client.get_model_version_by_alias("tiny-hybrid", "challenger")
    assert version.source.startswith("s3://layerwright/store/trees/")
    assert version.tags["layerwright.decision"] == "accepted"


def test_a_step_outlives_its_worker(stack: Stack, command: tuple[str, ...], tmp_path: Path) -> None:
    recipe = write_tiny_inputs(tmp_path)
    text = recipe.read_text().replace("steps: 6", "steps: 400").replace("every: 2", "every: 10")
    recipe.write_text(text.replace("tiny-hybrid", "tiny-lost-worker"))
    run = started(stack, command, tmp_path)
    until(run, "finetune step 20 of 400")
    worker = stack.processes.alive("worker-gpu")
    assert worker is not None
    kill_family(worker)
    stack.start_worker("gpu", "worker-gpu")
    output, said = run.communicate()
    assert run.returncode == 0, said
    assert json.loads(output.splitlines()[-1])["decision"] == "accepted"
    assert "finetune step 10 of 400" not in said, "it went on from the last training state"


def test_a_cancelled_run_takes_its_children_along(
    stack: Stack, command: tuple[str, ...], tmp_path: Path
) -> None:
    recipe = write_tiny_inputs(tmp_path)
    text = recipe.read_text().replace("steps: 6", "steps: 4000")
    recipe.write_text(text.replace("tiny-hybrid", "tiny-cancelled"))
    run = started(stack, command, tmp_path)
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
    recipe = write_tiny_inputs(tmp_path)
    text = recipe.read_text().replace("steps: 6", "steps: 300")
    recipe.write_text(text.replace("tiny-hybrid", "tiny-lost-parent"))
    run = started(stack, command, tmp_path)
    until(run, "finetune step 10 of 300")
    os.kill(run.pid, signal.SIGKILL)
    run.communicate()
    again = started(stack, command, tmp_path)
    output, said = again.communicate()
    assert again.returncode == 0, said
    assert json.loads(output.splitlines()[-1])["decision"] == "accepted"
    assert said.count("finetune step 10 of 300") == 1, "the same child, and its log from the start"
