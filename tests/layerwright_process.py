"""The command line in a process of its own, with one environment for all tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

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


class Preloaded:
    """Commands of the shared server, without their imports: tests/preloaded.py."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "preloaded.py")],
            cwd=folder,
            env=environment(OMP_NUM_THREADS="1"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, argv: tuple[str, ...], cwd: Path, env: dict[str, str]) -> int:
        """Begin a command; returns its process id. The next begins when `wait` has told its end."""
        asked = {"argv": argv, "cwd": str(cwd), "environment": env}
        for name in ("stdout", "stderr"):
            (self.folder / name).write_text("")
            asked[name] = str(self.folder / name)
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps(asked), file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())

    def wait(self) -> subprocess.CompletedProcess[str]:
        assert self.process.stdout
        status = int(self.process.stdout.readline())
        said = ((self.folder / name).read_text() for name in ("stdout", "stderr"))
        return subprocess.CompletedProcess((), status, *said)

    def kill_when(
        self,
        happened: Callable[[str], bool],
        argv: tuple[str, ...],
        cwd: Path,
        embedded: bool = True,
    ) -> None:
        """Kill a command as soon as that is so of what it said."""
        pid = self.start(argv, cwd, environment(embedded=embedded, OMP_NUM_THREADS="1"))
        stderr = self.folder / "stderr"
        while not happened(stderr.read_text()):
            assert psutil.pid_exists(pid), f"it ended before that:\n{stderr.read_text()}"
            time.sleep(0.01)
        os.kill(pid, signal.SIGKILL)
        assert self.wait().returncode == -signal.SIGKILL

    def end(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


PRELOADED: list[Preloaded] = []  # the one of these tests, where the shared server is up


def layerwright(
    *arguments: str,
    cwd: Path,
    embedded: bool = False,
    plain: bool = False,
    **extra: str,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end.

    Args:
        embedded: with a server of its own.
        plain: with its own imports too, as a user starts it.
    """
    env = environment(embedded=embedded, **{"OMP_NUM_THREADS": "1"} | extra)
    if PRELOADED and not plain:
        PRELOADED[0].start(arguments, cwd, env)
        return PRELOADED[0].wait()
    command = [*COMMAND, *arguments]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)


def last_line(result: subprocess.CompletedProcess[str]) -> dict:
    """The JSON object on the last line of stdout."""
    assert result.stdout.strip(), result.stderr
    return json.loads(result.stdout.strip().splitlines()[-1])
