"""Start long-running programs and record their process ids; stop only recorded processes."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil

from layerwright.tasks.disk import write_atomically
from layerwright.tasks.recorded_process import RecordedProcess

START_SECONDS = 120


class StackError(Exception):
    """A part of the stack failed; the message names the log."""


def program(name: str, package: str) -> str:
    """The path of a program; raises StackError if it is not installed."""
    path = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if path is None:
        raise StackError(f"the program {name} is not installed: install the package {package}")
    return path


def write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner can read."""
    path.touch(mode=0o600)
    path.write_text(text)


def free_ports(count: int) -> list[int]:
    """Free ports of the loopback interface, for which port + 10000 is free too."""
    with ExitStack() as sockets:
        ports: list[int] = []
        while len(ports) < count:
            first, second = (sockets.enter_context(socket.socket()) for _ in range(2))
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            with suppress(OSError, OverflowError):
                second.bind(("127.0.0.1", port + 10000))  # SeaweedFS uses it for gRPC
                ports.append(port)
        return ports


class Processes:
    """The programs of one folder, by name. ``processes.json`` records them across sessions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record = folder / "processes.json"

    def known(self) -> dict[str, RecordedProcess]:
        """The recorded processes by name."""
        if not self.record.is_file():
            return {}
        kept = json.loads(self.record.read_bytes())
        return {name: RecordedProcess(*process) for name, process in kept.items()}

    def alive(self, name: str) -> psutil.Process | None:
        """The running process of a program; None if it has ended."""
        process = self.known().get(name)
        return process and process.alive()

    def start(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        ready: Callable[[], bool],
        cwd: Path | None = None,
        user: str | None = None,
    ) -> None:
        """Start a program in its own session, and wait until ``ready`` returns True.

        Its output goes to ``logs/<name>.log``; ``cwd`` is by default the folder of the programs.

        Raises:
            StackError: the program ended, or was not ready in time.
        """
        log = self.log(name)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            process = subprocess.Popen(
                command, cwd=cwd or self.folder, env=dict(environment), user=user,
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
                preexec_fn=_enable_interrupts,
            )  # fmt: skip
        self._write(self.known() | {name: RecordedProcess.of(process.pid)})
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if self.alive(name) is None:
                said = log.read_text(errors="replace")[-2000:]
                raise StackError(f"{name} ended; its log {log}:\n{said}")
            with suppress(OSError):
                if ready():
                    return
            time.sleep(0.3)
        raise StackError(f"{name} is not ready after {START_SECONDS} s; see {log}")

    def says(self, name: str, text: str) -> bool:
        """Whether a program has written this text to its log."""
        return text in self.log(name).read_text(errors="replace")

    def log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"

    def stop(self, name: str) -> None:
        """Stop a program and its children: terminate, and kill after 20 seconds."""
        if process := self.known().get(name):
            process.end()
        self._write({k: v for k, v in self.known().items() if k != name})

    def stop_all(self) -> None:
        """Stop all programs in the reverse order of their start."""
        for name in reversed(list(self.known())):
            self.stop(name)

    def _write(self, known: Mapping[str, RecordedProcess]) -> None:
        write_atomically(self.record, json.dumps(known).encode())


def _enable_interrupts() -> None:
    """Restore SIGINT, which ends Prefect's workers: background jobs of a shell ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
