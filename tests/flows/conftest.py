"""One Prefect server for the commands of all tests here; the embedded one is asked for by name.

A server of its own costs each command seconds of both cores; what a test shows is the same on both,
but for how the embedded one begins and ends.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import in_process
import layerwright_process
import pytest
from filelock import FileLock
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker

from layerwright.infra.stack import Stack


def started(stack: Stack, made: Path) -> None:
    """Start its Prefect server, on a copy of the home that one has made for all."""
    home = Path(stack.environment["PREFECT_HOME"])
    if made.is_dir():
        shutil.copytree(made, home)
    stack.up(["prefect"])
    if not made.is_dir():
        shutil.copytree(home, made, ignore=shutil.ignore_patterns("prefect.db*"))
        with (
            sqlite3.connect(home / "prefect.db") as source,
            sqlite3.connect(made / "prefect.db") as target,
        ):
            source.backup(target)


@pytest.fixture(scope="package", autouse=True)
def shared_server(
    tmp_path_factory: pytest.TempPathFactory, empty_database: Path
) -> Iterator[Stack]:
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # what the workers share
    made = shared / "prefect"
    stack = Stack(tmp_path_factory.mktemp("server"))
    with FileLock(f"{made}.lock"):
        started(stack, made)
    names = ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_HOME")
    layerwright_process.SERVER.update({name: stack.environment[name] for name in names})
    in_process.EMPTY.update(mlflow=empty_database, prefect=made)
    yield stack
    for worker in (EventsWorker, APILogWorker):
        worker.drain_all(timeout=10)  # what this process has still to send
    in_process.EMPTY.clear()
    layerwright_process.SERVER.clear()
    stack.down()
