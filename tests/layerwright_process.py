"""The command line as tests call it: in this process, or in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from in_process import in_process

ROOT = Path(__file__).resolve().parents[1]
COMMAND = [sys.executable, "-m", "layerwright"]
SERVER: dict[str, str] = {}  # how to reach the Prefect server that tests share, where they do


def environment(*, embedded: bool = False, **extra: str) -> dict[str, str]:
    """This environment with the shared server or, ``embedded``, without any server's address.

    The project is importable in it.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_"))}
    server = {} if embedded else SERVER
    return kept | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"} | server | extra


def layerwright(
    *arguments: str, cwd: Path, embedded: bool = False, **extra: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end: in this process, where the shared server is up.

    Args:
        embedded: in a process of its own, with a Prefect server of its own.
    """
    env = environment(embedded=embedded, **{"OMP_NUM_THREADS": "1"} | extra)
    if SERVER and not embedded:
        return in_process(arguments, cwd, env)
    command = [*COMMAND, *arguments]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)


def signal_when(
    happened: Callable[[str], bool],
    *arguments: str,
    cwd: Path,
    embedded: bool = True,
    with_signal: signal.Signals,
) -> tuple[int, str]:
    """Start a command, and send a signal as soon as ``happened`` is true of its stderr.

    Returns:
        Its exit status and all of its stderr.
    """
    with (cwd / "killed.log").open("w+") as said:
        env = environment(embedded=embedded, OMP_NUM_THREADS="1")
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=cwd,
            env=env,
            stderr=said,
            # a shell that started the tests in the background had it ignored
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        while not happened(Path(said.name).read_text()):
            assert process.poll() is None, Path(said.name).read_text()
            time.sleep(0.01)
        process.send_signal(with_signal)
        status = process.wait()
        return status, Path(said.name).read_text()


def kill_when(
    happened: Callable[[str], bool], *arguments: str, cwd: Path, embedded: bool = True
) -> None:
    """Start a command, and kill it as soon as ``happened`` is true of its stderr."""
    killed = signal_when(
        happened, *arguments, cwd=cwd, embedded=embedded, with_signal=signal.SIGKILL
    )
    assert killed[0] == -signal.SIGKILL


def last_line(result: subprocess.CompletedProcess[str]) -> dict:
    """The JSON object on the last line of stdout."""
    assert result.stdout.strip(), result.stderr
    return json.loads(result.stdout.strip().splitlines()[-1])
