"""MLflow: the client, and the live metrics of a training.

MLflow is imported inside functions, because that takes seconds.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.errors import InputError, StepError
from layerwright.tasks.home import SQLITE, Home

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

FLUSH_SECONDS = 2.0
RETRY_SECONDS = 60.0  # between two attempts while MLflow does not answer
MAX_METRICS = 1000  # MLflow's limit per request
FINAL_SECONDS = 10.0  # how long the end of a training waits for the last metrics

EXPERIMENT = "layerwright"

# MLflow reads them when it is imported or first used; the user's environment has priority
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # the default retries a full store for minutes
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout is for the command's output
}


@contextlib.contextmanager
def connect(tracking_uri: str) -> Iterator[MlflowClient]:
    """A client for runs and registry. MLflow's errors inside the block become StepError.

    Args:
        tracking_uri: an MLflow server, or ``sqlite:///FILE``; a missing file is created.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    if tracking_uri.startswith(SQLITE):
        Path(tracking_uri.removeprefix(SQLITE)).parent.mkdir(parents=True, exist_ok=True)
    try:
        yield MlflowClient(tracking_uri, registry_uri=tracking_uri)
    except MlflowException as error:
        raise StepError(f"MLflow at {tracking_uri}: {error}") from error


def refuse_closed_server(tracking_uri: str) -> None:
    """Raise InputError if MLflow rejects our credentials, StepError if it does not answer."""
    from mlflow.exceptions import MlflowException

    try:
        with connect(tracking_uri) as client:
            client.search_experiments(max_results=1)
    except StepError as error:
        cause = error.__cause__
        if not isinstance(cause, MlflowException) or cause.get_http_status_code() not in (401, 403):
            raise
        raise InputError(
            f"the MLflow server at {tracking_uri} rejected our credentials",
            expected="MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
            "MLFLOW_TRACKING_TOKEN, as the server knows them",
        ) from error


def experiment_id(client: MlflowClient, name: str = EXPERIMENT) -> str:
    """The id of an experiment, which is created if it does not exist."""
    if experiment := client.get_experiment_by_name(name):
        return experiment.experiment_id
    uri, artifacts = client.tracking_uri, None
    if uri.startswith(SQLITE):  # beside the file; a server chooses the place itself
        artifacts = Home.beside(uri).artifacts.as_uri()
    return client.create_experiment(name, artifacts)


def is_missing(tracking_uri: str) -> bool:
    """Whether a registry is a file that does not exist; MLflow would create it on a read."""
    path = Path(tracking_uri.removeprefix(SQLITE))
    return tracking_uri.startswith(SQLITE) and not path.is_file()


def refuse_missing(tracking_uri: str) -> None:
    """Raise InputError if a registry is a file that does not exist."""
    if is_missing(tracking_uri):
        raise InputError(
            f"there is no registry at {tracking_uri}",
            remedy="give the home folder of the runs with --home, or the MLflow server",
        )


def refuse_unreachable(tracking_uri: str, store_uri: str) -> None:
    """Raise InputError if versions on an MLflow server would point at a folder of this machine."""
    if tracking_uri.startswith(("http://", "https://")) and store_uri.startswith("file:"):
        raise InputError(
            f"versions on {tracking_uri} would point at {store_uri}, which only this machine can "
            "read",
            where="registry.tracking_uri",
            remedy="set `store` to s3://bucket/prefix, or leave `tracking_uri` out",
        )


class Tracking(Contract):
    """The destination of a step's live metrics: an MLflow run of its own, found by its tags."""

    uri: str
    run_id: str
    step: str
    key: str  # the step's cache key: a step that runs twice in a run has two MLflow runs


@contextlib.contextmanager
def live_metrics(
    tracking: Tracking | None, log: Callable[[str], None]
) -> Iterator[Callable[[int, Mapping[str, float]], None]]:
    """A sink for a training's metrics: ``sink(step, {name: value})`` returns at once.

    A thread sends the metrics in batches. If MLflow fails, the training continues, the thread
    retries, and ``log`` gets one message. Without ``tracking`` the sink does nothing.
    """
    if tracking is None:
        yield lambda step, metrics: None
        return
    sender = _Sender(tracking, log)
    try:
        yield sender.put
    except BaseException:
        sender.end("FAILED")
        raise
    sender.end("FINISHED")


class _Sender:
    """Sends metrics to MLflow from a thread."""

    def __init__(self, tracking: Tracking, log: Callable[[str], None]) -> None:
        self.tracking, self.log = tracking, log
        self.waiting: list[tuple[int, float, dict[str, float]]] = []
        self.lock, self.ending = threading.Lock(), threading.Event()
        self.run: str | None = None
        self.status = "RUNNING"
        self.warned = False
        self.thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self.thread.start()

    def put(self, step: int, metrics: Mapping[str, float]) -> None:
        with self.lock:
            self.waiting.append((step, time.time(), dict(metrics)))

    def end(self, status: str) -> None:
        self.status = status
        self.ending.set()
        self.thread.join(FINAL_SECONDS)
        if self.thread.is_alive() and not self.warned:
            self._warn("it does not answer")

    def _work(self) -> None:
        done = False
        while not done:
            done = self.ending.wait(FLUSH_SECONDS)
            try:
                self._send(done)
            except Exception as error:  # no failure of MLflow may stop a training
                self._warn(str(error) or type(error).__name__)
                if not done and self.ending.wait(RETRY_SECONDS):
                    with contextlib.suppress(Exception):
                        self._send(last=True)  # the server may be back
                    done = True

    def _send(self, last: bool) -> None:
        with self.lock:
            batch = list(self.waiting)
        with connect(self.tracking.uri) as client:
            from mlflow.entities import Metric

            if self.run is None:
                self.run = self._find_or_create(client)
            metrics = [
                Metric(name, float(value), int(seconds * 1000), step)
                for step, seconds, values in batch
                for name, value in values.items()
            ]
            for first in range(0, len(metrics), MAX_METRICS):
                client.log_batch(self.run, metrics=metrics[first : first + MAX_METRICS])
            with self.lock:
                del self.waiting[: len(batch)]
            if last:
                client.set_terminated(self.run, self.status)

    def _find_or_create(self, client: MlflowClient) -> str:
        """The id of this step's MLflow run; a training that was killed continues its run."""
        experiment, tracking = experiment_id(client), self.tracking
        tags = {
            f"layerwright.{name}": getattr(tracking, name) for name in ("run_id", "step", "key")
        }
        same = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        if runs := client.search_runs([experiment], same, max_results=1):
            return runs[0].info.run_id
        name = f"{tracking.run_id} {tracking.step}"
        return client.create_run(experiment, tags=tags, run_name=name).info.run_id

    def _warn(self, reason: str) -> None:
        if not self.warned:
            self.warned = True
            problem = f"MLflow at {self.tracking.uri} does not accept metrics: {reason}"
            self.log(f"{problem}; {self.tracking.step} continues without them")
