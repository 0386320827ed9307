"""Runs on the stack as processes of their own, followed by what they say, and ended by force."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
from layerwright_process import COMMAND, environment
from tiny_checkpoint import write_tiny_inputs

from layerwright.infra.stack import Stack


def training_run(
    stack: Stack, command: tuple[str, ...], folder: Path, *, steps: int, name: str
) -> subprocess.Popen[str]:
    """A conversion that trains for so many steps and ends as ``name``; the same again goes on."""
    recipe = write_tiny_inputs(folder)
    text = recipe.read_text().replace("tiny-hybrid", name).replace("every: 2", "every: 10")
    recipe.write_text(text.replace("steps: 6", f"steps: {steps}"))
    return subprocess.Popen(
        [*COMMAND, "convert", "recipe.yaml", "--json", *command],
        cwd=folder,
        env=environment(OMP_NUM_THREADS="1", **stack.environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell that started the tests in the background had it ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def accepted(run: subprocess.Popen[str]) -> str:
    """What an accepted run says on stderr from here to its end."""
    output, said = run.communicate()
    assert run.returncode == 0, said
    assert json.loads(output.splitlines()[-1])["decision"] == "accepted"
    return said


def until(process: subprocess.Popen[str], marker: str) -> str:
    """What the process said on stderr up to the line that has ``marker``."""
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if marker in line:
            return "".join(seen)
    raise AssertionError(f"{marker!r} never came:\n{''.join(seen)}")


def kill_family(process: psutil.Process | None) -> None:
    assert process is not None
    family = [process, *process.children(recursive=True)]
    for member in family:
        member.send_signal(signal.SIGKILL)
    psutil.wait_procs(family, timeout=10)  # nobody takes a dead one for one that runs


def prefect(stack: Stack, *arguments: str) -> str:
    """What a command of Prefect says on the stack."""
    done = subprocess.run(
        [sys.executable, "-m", "prefect", *arguments],
        env=environment(**stack.environment), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def challenger(stack: Stack, name: str) -> Any:
    """MLflow's record of a model's version under that alias."""
    from mlflow.tracking import MlflowClient

    with stack.client():
        client = MlflowClient(stack.environment["MLFLOW_TRACKING_URI"])
        return client.get_model_version_by_alias(name, "challenger")
