"""A command in the test's own process: what a command changes in its process is put back.

A command sets the environment, the working folder, the streams and the log of its process, and
Prefect reads its settings from the environment. Nothing else stands in the way: a command keeps no
state in modules, and MLflow's clients are made for an address.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

SQLITE = "sqlite:///"
# A database with MLflow's tables, and a Prefect home with a database of its own: each takes seconds
# to make. Before both are made, there are none.
EMPTY: dict[str, Path] = {}


def in_process(
    arguments: tuple[str, ...], cwd: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run the command of these arguments to its end, as ``subprocess.run`` would."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        with placed(cwd, environment), redirected(out, err), own_log(), tables_of_mlflow():
            status = run(arguments)
        said = []
        for stream in (out, err):
            stream.seek(0)
            said.append(stream.read())
    return subprocess.CompletedProcess(arguments, status, *said)


@cache
def warm_up() -> None:
    """What no test module imports and commands do, and what they work out once a process."""
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    from layerwright.tasks.hybrid.export import shipped_sources
    from layerwright.tasks.orchestration.code_version import code_version

    for name in (
        "layerwright.flows.convert",
        "mlflow.store.tracking.sqlalchemy_store",
        "mlflow.store.model_registry.sqlalchemy_store",
        "prefect.server.api.server",
    ):
        importlib.import_module(name)
    for name in [name for name in sys.modules if name.startswith("layerwright.tasks.")]:
        code_version(name)
    shipped_sources()
    get_checkpoint_conversion_mapping("llama")


def in_fork(
    arguments: tuple[str, ...],
    cwd: Path,
    environment: dict[str, str],
    said: Path,
    empty: dict[str, Path],
    file_bytes: int | None,
) -> int:
    """Run it in a process that was forked for it, which writes into ``said``.out and ``said``.err.

    Prefect was imported before the command says where its home is.
    """
    if file_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    from prefect.context import refresh_global_settings_context
    from prefect.logging.configuration import setup_logging

    from layerwright.flows.session import embedded

    set_environment, begin_server = embedded.configure, embedded.Server.begin

    def configure(home: Any) -> None:
        set_environment(home)
        refresh_global_settings_context()
        setup_logging()

    def begin(server: Any) -> None:
        if "prefect" in EMPTY and not (server.home.prefect / "prefect.db").exists():
            shutil.copytree(EMPTY["prefect"], server.home.prefect, dirs_exist_ok=True)
        begin_server(server)

    EMPTY.update(empty)
    with (
        said.with_suffix(".out").open("w") as out,
        said.with_suffix(".err").open("w") as err,
        placed(cwd, environment),
        redirected(out, err),
        tables_of_mlflow(),
        mock.patch.object(embedded, "configure", configure),
        mock.patch.object(embedded.Server, "begin", begin),
    ):
        return run(arguments)


def run(arguments: tuple[str, ...]) -> int:
    from layerwright.flows.command_line.main import main

    with mock.patch.object(sys, "argv", ["layerwright", *arguments]):
        try:
            main()
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else int(end.code is not None)
        except Exception:  # as Python would end a process of its own
            sys.excepthook(*sys.exc_info())
            return 1
    return 0


@contextlib.contextmanager
def placed(cwd: Path, environment: dict[str, str]) -> Iterator[None]:
    """That working folder and that environment, also for Prefect, which may be imported already."""
    from prefect.context import refresh_global_settings_context

    from layerwright.flows.session.embedded import SETTINGS

    try:
        with contextlib.chdir(cwd), mock.patch.dict(os.environ, SETTINGS | environment, clear=True):
            refresh_global_settings_context()
            yield
    finally:
        refresh_global_settings_context()


@contextlib.contextmanager
def redirected(out: Any, err: Any) -> Iterator[None]:
    """Both streams into files, for Python and for the processes that a command starts."""
    kept = os.dup(1), os.dup(2)
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    try:
        with (
            open(os.devnull) as nothing,
            open(1, "w", closefd=False) as stdout,
            open(2, "w", buffering=1, closefd=False) as stderr,
            mock.patch.multiple(sys, stdin=nothing, stdout=stdout, stderr=stderr),
        ):
            yield
    finally:
        for number, stream in enumerate(kept, start=1):
            os.dup2(stream, number)
            os.close(stream)


@contextlib.contextmanager
def own_log() -> Iterator[None]:
    """Without the handlers that a command adds to the log of Layerwright."""
    log = logging.getLogger("layerwright")
    kept = list(log.handlers), log.level, log.propagate
    try:
        yield
    finally:
        log.handlers[:], log.level, log.propagate = kept


@contextlib.contextmanager
def tables_of_mlflow() -> Iterator[None]:
    """A new database of MLflow is a copy of an empty one."""
    from mlflow.tracking import MlflowClient

    def client(tracking_uri: str, **options: Any) -> MlflowClient:
        path = Path(tracking_uri.removeprefix(SQLITE))
        if "mlflow" in EMPTY and tracking_uri.startswith(SQLITE) and not path.exists():
            with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as copy:
                shutil.copyfile(EMPTY["mlflow"], copy.name)
            os.rename(copy.name, path)
        return MlflowClient(tracking_uri, **options)

    with mock.patch("mlflow.tracking.MlflowClient", client):
        yield
