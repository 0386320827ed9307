"""Processes that begin with everything imported: forks of this one as it was before its tests.

A Python that imports what a command needs takes ten seconds of a core. A fork takes none, and is a
process like any other: it has its own id, environment and threads, and can be killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from typing import Any

import torch

SERVER: list[Connection] = []  # the way to the process that forks, which no test has touched


def begin() -> None:
    """Start the process that forks. It ends with this one, whose end closes the connection."""
    ours, theirs = Pipe()
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # threads of xdist
        if os.fork() == 0:
            _end_with(_serve, theirs)
    theirs.close()
    SERVER.append(ours)


def _end_with(call: Callable[..., object], *arguments: Any) -> None:
    """End this process with the call: with its number, if it returns one."""
    status: object = 1
    try:
        status = call(*arguments)
        threading._shutdown()  # as at every end of Python: threads that are no daemons are awaited
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):  # the process that forks has closed them
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status if isinstance(status, int) else int(status is not None))


def _let_go(*kept: int) -> None:
    """The parent's files, xdist's among them, lead nowhere.

    Their numbers stay taken: a log or a captured stream that still writes to one would otherwise
    write into a file or connection that is opened later.
    """
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in map(int, os.listdir("/dev/fd")):
        with contextlib.suppress(OSError):  # the listing's own is closed
            if number > 2 and number not in kept and os.fstat(number):
                os.dup2(nowhere, number, inheritable=False)


def _serve(connection: Connection) -> None:
    _let_go(connection.fileno())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with (
        open(1, "w", closefd=False) as sys.stdout,
        open(2, "w", closefd=False) as sys.stderr,
        contextlib.suppress(EOFError),
    ):
        while True:
            call, arguments = connection.recv()
            connection.send(call(*arguments))


def _fork(
    prepare: Callable[[], None] | None, said: str, call: Callable[..., object], arguments: tuple
) -> int:
    if prepare:
        prepare()
    if pid := os.fork():
        return pid
    output = os.open(said, os.O_WRONLY | os.O_APPEND)
    for number in (1, 2):
        os.dup2(output, number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _let_go()
    torch.set_num_threads(1)
    _end_with(call, *arguments)
    raise AssertionError("it has ended")


def _status(pid: int) -> int | None:
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


class Fork:
    """A process that calls a function. The names are those of ``subprocess.Popen``."""

    prepare: Callable[[], None] | None = None  # what is done before, in the process that forks

    def __init__(self, call: Callable[..., object], *arguments: Any) -> None:
        self.returncode: int | None = None
        self.output = tempfile.NamedTemporaryFile("r", errors="replace")  # noqa: SIM115
        self.pid = self._ask(_fork, type(self).prepare, self.output.name, call, arguments)

    def _ask(self, *asked: Any) -> Any:
        SERVER[0].send((asked[0], asked[1:]))
        return SERVER[0].recv()

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._ask(_status, self.pid)
        return self.returncode

    def wait(self) -> int:
        while self.poll() is None:
            time.sleep(0.01)
        print(self.output.read(), file=sys.stderr)  # which is shown where a test fails
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)
