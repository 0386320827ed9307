"""One Prefect server for the commands of all tests here; the embedded one is asked for by name.

A server of its own costs each command seconds of both cores; what a test shows is the same on both,
but for how the embedded one begins and ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import in_process
import layerwright_process
import pytest
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker

from layerwright.infra.stack import Stack


@pytest.fixture(scope="session", autouse=True)
def shared_server(
    tmp_path_factory: pytest.TempPathFactory, empty_database: Path
) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("server"))
    stack.up(["prefect"])
    names = ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_HOME")
    layerwright_process.SERVER.update({name: stack.environment[name] for name in names})
    in_process.EMPTY.append(empty_database)
    yield stack
    for worker in (EventsWorker, APILogWorker):
        worker.drain_all(timeout=10)  # what this process has still to send
    in_process.EMPTY.clear()
    layerwright_process.SERVER.clear()
    stack.down()
