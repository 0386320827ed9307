"""The MLflow client, made late: importing MLflow takes seconds that not every command has."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.errors import InputError, StepError

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

EXPERIMENT = "layerwright"
SQLITE = "sqlite:///"

# read by MLflow when it is imported or first asked; what the user's environment says wins
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # the default keeps retrying a full store for minutes
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout is the command line's
}


@contextlib.contextmanager
def connect(tracking_uri: str) -> Iterator[MlflowClient]:
    """A client for runs and registry alike, whose failures name the server.

    Args:
        tracking_uri: an MLflow server, or ``sqlite:///FILE``, which is made if it is not there.

    Raises:
        StepError: MLflow cannot be reached or refuses.
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


def experiment_id(client: MlflowClient) -> str:
    """The experiment that holds the evidence of all versions; made if it is not there.

    On SQLite its artifacts lie in ``mlflow-artifacts`` beside the file, whatever the working
    folder is; a server has its own place for them.
    """
    found = client.get_experiment_by_name(EXPERIMENT)
    if found:
        return found.experiment_id
    artifacts = None
    if client.tracking_uri.startswith(SQLITE):
        database = Path(client.tracking_uri.removeprefix(SQLITE)).resolve()
        artifacts = (database.parent / "mlflow-artifacts").as_uri()
    return client.create_experiment(EXPERIMENT, artifacts)


def refuse_unreachable(tracking_uri: str, store_uri: str) -> None:
    """Raise InputError where an MLflow server would be pointed at a folder of this machine."""
    if tracking_uri.startswith(("http://", "https://")) and store_uri.startswith("file:"):
        raise InputError(
            f"versions on {tracking_uri} would point at {store_uri}, which only this machine can "
            "read",
            where="registry.tracking_uri",
            remedy="set `store` to s3://bucket/prefix, or leave `tracking_uri` out",
        )
