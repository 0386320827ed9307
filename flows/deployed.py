"""The flows that a Prefect deployment serves: a recipe's path in, a summary out.

What the commands `convert`, `survey`, `requalify` and `rollout` do, in a worker's process: its
environment names the server, and LAYERWRIGHT_HOME the folder it works in.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from prefect import flow
from prefect.states import Completed

from layerwright.flows.session import launch
from layerwright.flows.session.rollout_launch import run_rollout
from layerwright.tasks.errors import InputError
from layerwright.tasks.register.versions import Address
from layerwright.tasks.store.s3 import S3_ERRORS, s3_client

HOME = ".layerwright"


@flow(name="convert", persist_result=False)
def convert(recipe: str, assignments: list[str] | None = None, home: str | None = None) -> Any:
    """Convert by a recipe; the state is `Completed` where it was accepted, else `Rejected`.

    Args:
        recipe: a path in the repository, or ``s3://bucket/key``.
        assignments: as `--set a.b=c` of the command.
        home: default LAYERWRIGHT_HOME.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = _fetched(recipe, Path(folder))
        ready = launch.prepare(path, assignments or [], _home(home), flow="convert")
        return _judged(launch.run_convert(ready))


@flow(name="survey", persist_result=False)
def survey(recipe: str, assignments: list[str] | None = None, home: str | None = None) -> Any:
    """Compare the selectors of a recipe; arguments as of `convert`."""
    with tempfile.TemporaryDirectory() as folder:
        path = _fetched(recipe, Path(folder))
        ready = launch.prepare(path, assignments or [], _home(home), flow="survey")
        return launch.run_survey(ready)


@flow(name="requalify", persist_result=False)
def requalify(
    version: str, recipe: str, assignments: list[str] | None = None, home: str | None = None
) -> Any:
    """Measure a registered version again; the state is `Completed`, or `Rejected`.

    Args:
        version: ``NAME@alias`` or ``NAME/version``.
    """
    address = str(Address.parse(version))
    with tempfile.TemporaryDirectory() as folder:
        path = _fetched(recipe, Path(folder))
        ready = launch.prepare(path, assignments or [], _home(home), flow="requalify")
        return _judged(launch.run_requalification(ready, address))


@flow(name="rollout", persist_result=False)
def rollout(
    model: str,
    recipe: str,
    log: str,
    assignments: list[str] | None = None,
    home: str | None = None,
) -> Any:
    """Roll the challenger out over a request log; the state is `Completed` where it became
    champion, else it bears the name of how the roll-out stands.

    Args:
        log: a path, or ``s3://bucket/key``.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = _fetched(recipe, Path(folder) / "recipe")
        requests = _fetched(log, Path(folder) / "log")
        found = run_rollout(model, path, assignments or [], requests, _home(home))
    state = found["state"]
    if state["status"] == "promoted":
        return found
    return Completed(name=state["status"].capitalize(), message=state["reason"], data=found)


def _judged(found: dict[str, Any]) -> Any:
    """The state that says what was decided."""
    if found["decision"] == "accepted":
        return found
    failed = "; ".join(found["failed_checks"])
    return Completed(name="Rejected", message=failed, data=found)


def _home(given: str | None) -> Path:
    return Path(given or os.environ.get("LAYERWRIGHT_HOME", HOME))


def _fetched(address: str, folder: Path) -> Path:
    """A recipe or a log as a local file.

    Raises:
        InputError: there is no such object.
    """
    if not address.startswith("s3://"):
        return Path(address)
    parsed = urlparse(address)
    folder.mkdir(exist_ok=True)
    path = folder / Path(parsed.path).name
    try:
        s3_client().download_file(parsed.netloc, parsed.path.lstrip("/"), str(path))
    except S3_ERRORS as error:
        raise InputError(f"{address} cannot be read: {error}") from error
    return path
