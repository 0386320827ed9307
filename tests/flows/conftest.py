"""One Prefect server for the commands of all tests here; the embedded one is asked for by name.

A server of its own costs each command seconds of both cores; what a test shows is the same on both,
but for how the embedded one begins and ends.
"""

from __future__ import annotations

from collections.abc import Iterator

import layerwright_process
import pytest

from layerwright.infra.stack import Stack


@pytest.fixture(scope="session", autouse=True)
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("server"))
    stack.up(["prefect"])
    names = ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_HOME")
    layerwright_process.SERVER.update({name: stack.environment[name] for name in names})
    preloaded = layerwright_process.Preloaded(tmp_path_factory.mktemp("preloaded"))
    layerwright_process.PRELOADED.append(preloaded)
    yield stack
    layerwright_process.PRELOADED.clear()
    preloaded.end()
    layerwright_process.SERVER.clear()
    stack.down()
