"""Start long-running programs and record their process ids; stop only recorded processes."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import psutil

from layerwright.tasks.disk import write_atomically
from layerwright.tasks.recorded_process import RecordedProcess

START_SECONDS = 120


class StackError(Exception):
    """A part of the stack failed; the message names the log."""


def free_ports(count: int) -> list[int]:
    """Free ports of the loopback interface, for which port + 10000 is free too."""
    with ExitStack() as sockets:
        ports: list[int] = []
        while len(ports) < count:
            first, second = (sockets.enter_context(socket.socket()) for _ in range(2))
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 10000))  # SeaweedFS uses it for gRPC
            except (OSError, OverflowError):
                continue
            ports.append(port)
        return ports


def _enable_interrupts() -> None:
    """Restore SIGINT, which ends Prefect's workers: background jobs of a shell ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


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
        *,
        cwd: Path,
        user: str | None = None,
    ) -> psutil.Process:
        """Start a program in its own session; its output goes to ``logs/<name>.log``."""
        log = self.log(name)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            process = subprocess.Popen(
                command, cwd=cwd, env=dict(environment), stdin=subprocess.DEVNULL, stdout=out,
                stderr=out, start_new_session=True, user=user, preexec_fn=_enable_interrupts,
            )  # fmt: skip
        self._write(self.known() | {name: RecordedProcess.of(process.pid)})
        return psutil.Process(process.pid)

    def log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"

    def wait(self, name: str, ready: Callable[[], bool], seconds: float = START_SECONDS) -> None:
        """Wait until ``ready`` returns True.

        Raises:
            StackError: the program ended, or was not ready in time.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.alive(name) is None:
                raise StackError(f"{name} ended; its log {self.log(name)}:\n{self._tail(name)}")
            try:
                if ready():
                    return
            except OSError:
                pass
            time.sleep(0.3)
        raise StackError(f"{name} is not ready after {seconds:g} s; see {self.log(name)}")

    def stop(self, name: str, seconds: float = 20) -> None:
        """Stop a program and its children: terminate, and kill after ``seconds``."""
        if process := self.known().get(name):
            process.end(seconds)
        self._write({k: v for k, v in self.known().items() if k != name})

    def stop_all(self) -> None:
        """Stop all programs in the reverse order of their start."""
        for name in reversed(list(self.known())):
            self.stop(name)

    def _tail(self, name: str) -> str:
        return self.log(name).read_text(errors="replace")[-2000:]

    def _write(self, known: Mapping[str, RecordedProcess]) -> None:
        write_atomically(self.record, json.dumps(known).encode())
