"""The whole production stack of `make stack-up`, for `make test-stack` alone."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerwright.infra.stack import Stack


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    for program, package in (("initdb", "postgresql"), ("redis-server", "redis-server")):
        if shutil.which(program) is None:
            pytest.skip(f"the program {program} is missing: install the package {package}")
    # TERM ends pytest without its fixtures; as an interrupt, it stops the servers first
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # not under pytest's own folder: PostgreSQL's user must be able to enter it
    folder = Path(tempfile.mkdtemp(prefix="layerwright-stack-"))
    stack = Stack(folder)
    try:
        stack.up()
        yield stack
    finally:
        stack.down()
        shutil.rmtree(folder)


@pytest.fixture
def command(stack: Stack) -> tuple[str, ...]:
    """What a recipe is told about the stack, as `--set` options."""
    settings = (
        f"store={stack.environment['LAYERWRIGHT_STORE']}",
        f"registry.tracking_uri={stack.environment['MLFLOW_TRACKING_URI']}",
        "compute.steps.profile={where: pool, pool: gpu, retries: 2}",
        "compute.steps.finetune={where: pool, pool: gpu, retries: 2}",
        "compute.steps.evaluate={where: pool, pool: cpu, queue: steps, retries: 2}",
    )
    return tuple(part for setting in settings for part in ("--set", setting))
