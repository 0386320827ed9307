"""The command line as tests call it: in this process, or in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from forks import Fork
from in_process import EMPTY, in_fork, in_process, warm_up

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
    *arguments: str, cwd: Path, embedded: bool = False, begun: bool = False, **extra: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end: in this process.

    Args:
        embedded: in a process of its own, with a Prefect server of its own.
        begun: that process is a Python that begins, as a user's, and no fork.
    """
    env = environment(embedded=embedded, **{"OMP_NUM_THREADS": "1"} | extra)
    if begun:
        command = [*COMMAND, *arguments]
        return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    if embedded:
        return Forked(arguments, cwd, env).communicate()
    return in_process(arguments, cwd, env)


class Forked(Fork):
    """A command in a process of its own that was forked for it.

    Args:
        file_bytes: it cannot write longer files, as on a disk that is full.
    """

    prepare = staticmethod(warm_up)

    def __init__(
        self,
        arguments: tuple[str, ...],
        cwd: Path,
        env: dict[str, str],
        file_bytes: int | None = None,
    ) -> None:
        self.arguments, self.folder = arguments, tempfile.TemporaryDirectory()
        self.said = Path(self.folder.name, "said")
        super().__init__(in_fork, arguments, cwd, env, self.said, EMPTY, file_bytes)

    def stderr(self) -> str:
        """What it has said by now."""
        path = self.said.with_suffix(".err")
        return path.read_text() if path.exists() else ""

    def communicate(self) -> subprocess.CompletedProcess[str]:
        status = self.wait()
        out = self.said.with_suffix(".out").read_text()
        return subprocess.CompletedProcess(self.arguments, status, out, self.stderr())


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
    process = Forked(arguments, cwd, environment(embedded=embedded, OMP_NUM_THREADS="1"))
    try:
        while not happened(process.stderr()):
            assert process.poll() is None, process.stderr()
            time.sleep(0.01)
        process.send_signal(with_signal)
        return process.wait(), process.stderr()
    finally:
        process.send_signal(signal.SIGKILL)


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
