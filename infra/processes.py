"""Programs that stay: started with a record of who they are, and ended by that record alone."""

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
    """A part of the stack does not do what it should; the message says which log tells why."""


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on, nor on each port + 10000."""
    with ExitStack() as held:
        found: list[int] = []
        while len(found) < count:
            one, other = (held.enter_context(socket.socket()) for _ in range(2))
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            try:
                other.bind(("127.0.0.1", port + 10000))  # SeaweedFS takes it for gRPC
            except (OSError, OverflowError):
                continue
            found.append(port)
        return found


def _hear_interrupts() -> None:
    """A shell that starts a job in the background has it ignore what Prefect's workers end by."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Processes:
    """The programs of one folder, by name; ``processes.json`` survives whoever started them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record = folder / "processes.json"

    def known(self) -> dict[str, RecordedProcess]:
        if not self.record.is_file():
            return {}
        kept = json.loads(self.record.read_bytes())
        return {name: RecordedProcess(*process) for name, process in kept.items()}

    def alive(self, name: str) -> psutil.Process | None:
        """The process, if it is the one that was started."""
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
        """Start a program in a session of its own; its output goes to ``logs/<name>.log``."""
        log = self.log(name)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            process = subprocess.Popen(
                command, cwd=cwd, env=dict(environment), stdin=subprocess.DEVNULL, stdout=out,
                stderr=out, start_new_session=True, user=user, preexec_fn=_hear_interrupts,
            )  # fmt: skip
        self._write(self.known() | {name: RecordedProcess.of(process.pid)})
        return psutil.Process(process.pid)

    def log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"

    def wait(self, name: str, ready: Callable[[], bool], seconds: float = START_SECONDS) -> None:
        """Until ``ready`` says so.

        Raises:
            StackError: the program ended, or is not ready in time.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.alive(name) is None:
                raise StackError(f"{name} ended; {self.log(name)} says:\n{self._tail(name)}")
            try:
                if ready():
                    return
            except OSError:
                pass
            time.sleep(0.3)
        raise StackError(f"{name} is not ready after {seconds:g} s; see {self.log(name)}")

    def stop(self, name: str, seconds: float = 20) -> None:
        """End a program and all its children: asked first, then by force."""
        if process := self.known().get(name):
            process.end(seconds)
        self._write({k: v for k, v in self.known().items() if k != name})

    def stop_all(self) -> None:
        """In the reverse order of their start."""
        for name in reversed(list(self.known())):
            self.stop(name)

    def _tail(self, name: str) -> str:
        return self.log(name).read_text(errors="replace")[-2000:]

    def _write(self, known: Mapping[str, RecordedProcess]) -> None:
        write_atomically(self.record, json.dumps(known).encode())
