"""A process that has imported all that commands import, and forks into each command it is given.

Two thirds of a tiny run's time are imports, the same ones for every command of the suite. Reads
JSON lines on stdin (``argv``, ``cwd``, ``environment``, ``stdout`` and ``stderr`` as paths), and
answers each with the command's process id, and with its exit status when it has ended. The command
itself begins in a new process, with the modules as if just imported.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import pkgutil
import sqlite3
import sys
import threading
import traceback
from contextlib import closing
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def preload() -> None:
    """Everything under flows/ and tasks/, as the command that sets its environment first has it."""
    from layerwright.flows.session.embedded import configure

    configure(ROOT / "nowhere")  # the environment names a server: no home is looked for
    for package in ("tasks", "flows"):
        for found in pkgutil.walk_packages([str(ROOT / package)], f"layerwright.{package}."):
            importlib.import_module(found.name)
    importlib.import_module("mlflow.store.tracking.sqlalchemy_store")
    warm()
    assert threading.active_count() == 1, "a thread would be missing in every command"


def warm() -> None:
    """What libraries and steps work out once a process, the same in each."""
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    from layerwright.tasks.hybrid.export import shipped_sources
    from layerwright.tasks.orchestration.code_version import code_version
    from layerwright.tasks.report.template import template

    for module in [name for name in sys.modules if name.startswith("layerwright.tasks.")]:
        code_version(module)
    shipped_sources()
    get_checkpoint_conversion_mapping("llama")
    for page in (ROOT / "tasks" / "report").glob("*.html.j2"):
        template(page.name)
    make_tables_once(Path("empty.db").resolve())


def make_tables_once(empty: Path) -> None:
    """MLflow's tables, the sum of all its migrations: new files get a copy of those made here."""
    from mlflow.store.db import utils

    from layerwright.tasks.tracking import connect

    with connect(f"sqlite:///{empty}") as client:
        client.search_experiments()

    def copy(engine: Any) -> None:
        with closing(sqlite3.connect(empty)) as source, closing(engine.raw_connection()) as target:
            source.backup(target.driver_connection)

    utils._initialize_tables = copy


def run(asked: dict[str, Any]) -> int:
    """In the new process: the command, to its end."""
    from prefect.context import refresh_global_settings_context

    from layerwright.flows.session import embedded

    configure = embedded.configure

    def configure_again(home: Path) -> None:
        configure(home)
        refresh_global_settings_context()  # Prefect is imported already

    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    refresh_global_settings_context()
    embedded.configure = configure_again
    for stream, path in ((0, os.devnull), (1, asked["stdout"]), (2, asked["stderr"])):
        opened = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(opened, stream)
        os.close(opened)
    sys.argv = ["layerwright", *asked["argv"]]
    try:
        from layerwright.flows.command_line.main import main as command

        command()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def main() -> None:
    sys.path[0] = ""  # as `python -m` has it
    preload()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os._exit(run(json.loads(line)))
        print(child, file=answers)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=answers)


if __name__ == "__main__":
    main()
