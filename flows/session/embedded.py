"""The embedded Prefect server, which starts and ends with a command; it is the default. Its files
are in the home folder. A killed command's server is found by its recorded process id, and ended.
"""

import json
import os
import subprocess
import sys
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

from layerwright.tasks.disk import write_atomically
from layerwright.tasks.home import Home
from layerwright.tasks.recorded_process import RecordedProcess

SETTINGS = {
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "layerwright",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


APP = "prefect.server.api.server:create_app"
SERVER_SETTINGS = {
    "PREFECT_UI_ENABLED": "0",
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
}


def configure(home: Home) -> None:
    """Set the environment of an embedded run, before Prefect and MLflow are first imported. If
    ``PREFECT_API_URL`` names a server, that server is used and only telemetry is turned off.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    if not sys.stderr.isatty():  # progress bars of libraries would fill a log
        os.environ.setdefault("TQDM_DISABLE", "1")
    if "PREFECT_API_URL" not in os.environ:
        os.environ["PREFECT_HOME"] = str(home.prefect)
        # checking a recipe imports Prefect, which would make folders before a run starts
        warnings.filterwarnings("ignore", message="Failed to create the Prefect home")


class Server:
    """A Prefect server for one command: the environment's, or an ephemeral one of our own.
    ``begin`` starts the ephemeral server without waiting, during the command's imports.
    """

    def __init__(self, home: Home) -> None:
        self.home = home
        self.record = home.servers / f"{os.getpid()}.json"
        self.ephemeral: Any = None
        self.starting: Future[None] | None = None

    def begin(self) -> None:
        if os.environ.get("PREFECT_API_URL") or self.starting:
            return
        import prefect
        from prefect.server.api.server import SubprocessASGIServer
        from prefect.settings import get_current_settings

        folder, record = self.home.prefect, self.record

        class RecordedServer(SubprocessASGIServer):
            """The instance that Prefect's clients find and use."""

            def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
                # not on this command's stdout and stderr: if the command is killed, their readers
                # would wait for this server to end
                where = ["--app-dir", str(Path(prefect.__file__).parent), "--host", "127.0.0.1"]
                how = ["--port", str(self.port), "--log-level", "error", "--lifespan", "on"]
                settings = get_current_settings().to_environment_variables(exclude_unset=True)
                with (folder / "server.log").open("ab") as log:
                    process = subprocess.Popen(
                        [sys.executable, "-m", "uvicorn", "--factory", APP, *where, *how],
                        env=os.environ | SERVER_SETTINGS | settings,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                    )
                # recorded before it answers, so that a run killed now leaves a record too
                pair = {"owner": RecordedProcess.of(), "server": RecordedProcess.of(process.pid)}
                write_atomically(record, json.dumps(pair).encode())
                return process

        end_leftovers(self.home)
        folder.mkdir(parents=True, exist_ok=True)
        self.ephemeral = RecordedServer()
        pool = ThreadPoolExecutor(1)
        self.starting = pool.submit(self.ephemeral.start)
        pool.shutdown(wait=False)

    def __enter__(self) -> Self:
        from layerwright.flows.session.prefect_server import refuse_closed_server

        refuse_closed_server()
        self.begin()
        if self.starting:
            self.starting.result()
        return self

    def __exit__(self, *exception: object) -> None:
        if not self.starting:
            return
        from prefect.events.worker import EventsWorker
        from prefect.logging.handlers import APILogWorker

        # send what is queued before the server ends, or it is retried for a minute
        EventsWorker.drain_all(timeout=10)
        APILogWorker.drain_all(timeout=10)
        self.end()

    def end(self) -> None:
        """Stop the ephemeral server, even if it is not ready yet."""
        if self.starting:
            self.starting.exception()
            self.ephemeral.stop()
            self.record.unlink(missing_ok=True)


def end_leftovers(home: Home) -> None:
    """End servers whose command has ended."""
    for record in sorted(home.servers.glob("*.json")):
        content = json.loads(record.read_bytes())
        if RecordedProcess(*content["owner"]).alive():
            continue
        RecordedProcess(*content["server"]).end()
        record.unlink(missing_ok=True)
