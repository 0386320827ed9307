"""A process whose id is recorded in a file, so that another command can find and stop it."""

import os
from typing import NamedTuple, Self

import psutil


class RecordedProcess(NamedTuple):
    """A process id and the start time, because systems reuse ids. In JSON it is a list."""

    pid: int
    started: float

    @classmethod
    def of(cls, pid: int | None = None) -> Self:
        """The record of the running process ``pid``; by default of this process."""
        process = psutil.Process(pid or os.getpid())
        return cls(process.pid, process.create_time())

    def alive(self) -> psutil.Process | None:
        """The recorded process; None if it has ended."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < 1.0
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None

    def end(self, seconds: float = 20) -> bool:
        """Terminate the process, kill it and its children later; return whether it still ran."""
        process = self.alive()
        if process is None:
            return False
        family = [process, *process.children(recursive=True)]
        process.terminate()
        psutil.wait_procs([process], timeout=seconds)
        _, left = psutil.wait_procs([p for p in family if p.is_running()], timeout=2)
        for member in left:
            member.kill()
        psutil.wait_procs(left, timeout=10)
        return True
