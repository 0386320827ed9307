"""A session: one run of a flow, with its recipe, its pinned sources, its folder and its record."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from prefect import runtime
from prefect.client.orchestration import get_client
from prefect.states import Completed

from layerwright.flows.session.prepare import place_of, prepare
from layerwright.flows.session.runs import RunFolder, RunRecord
from layerwright.tasks.contracts.evaluation import Champion
from layerwright.tasks.contracts.plan import ConversionPlan
from layerwright.tasks.contracts.references import ModelRef
from layerwright.tasks.contracts.requalification import Requalification
from layerwright.tasks.contracts.run import RunSummary
from layerwright.tasks.disk import full_disk_as_step_error
from layerwright.tasks.errors import InputError, LayerwrightError
from layerwright.tasks.home import Home
from layerwright.tasks.orchestration.place import Place, Run
from layerwright.tasks.recipe.recipe import Recipe
from layerwright.tasks.register.versions import current_champion
from layerwright.tasks.store.base import Store
from layerwright.tasks.store.s3 import S3_ERRORS, s3_client

HOME = ".layerwright"


@dataclass(frozen=True)
class Session:
    """One run of a flow through its DAG, with the flow's inputs."""

    recipe: Recipe
    pins: dict[str, str]
    folder: RunFolder
    plan: ConversionPlan | None = None
    dry: bool = False
    run: Run = field(init=False)

    def __post_init__(self) -> None:
        place = place_of(self.recipe, self.folder.home, self.folder.run_id)
        object.__setattr__(self, "run", Run(place, dry=self.dry))

    @property
    def run_id(self) -> str:
        return self.folder.run_id

    @property
    def home(self) -> Home:
        return self.folder.home

    @property
    def place(self) -> Place:
        return self.run.place

    @property
    def tracking_uri(self) -> str:
        """The MLflow of the recipe, or the home's own."""
        assert self.place.tracking_uri is not None  # place_of set it
        return self.place.tracking_uri

    @property
    def seconds(self) -> dict[str, float]:
        """Rounded seconds by step, for results."""
        return {step: round(spent, 2) for step, spent in self.run.seconds.items()}

    def open_store(self) -> Store:
        return self.place.open_store()

    def champion(self, base: ModelRef, name: str | None = None) -> Champion | None:
        """The champion that was made from this base, of the recipe's model or of ``name``."""
        options = self.recipe.registry
        assert options is not None  # flows that measure a champion need the block
        if name:
            options = options.model_copy(update={"model_name": name})
        return current_champion(
            options,
            tracking_uri=self.tracking_uri,
            base_sha256=base.sha256,
            store=self.open_store(),
        )


@contextlib.contextmanager
def session(
    flow: str,
    recipe: str,
    assignments: list[str] | None = None,
    home: str | None = None,
    run: str | None = None,
) -> Iterator[Session]:
    """Open the session of the flow run that calls this, and record how the run ends.

    Args:
        flow: the flow's name.
        recipe: a path, or ``s3://bucket/key``.
        assignments: changes of the recipe, as `--set a.b=c` of the command line.
        home: the home folder; default LAYERWRIGHT_HOME.
        run: the id of a run that is prepared and recorded in the home already; the recipe and its
            changes are then those of the record.

    Raises:
        InputError: the recipe is wrong, or a source is missing.
    """
    at = home_at(home)
    if run is None:
        with local_file(recipe) as path:
            folder = prepare(path, assignments or [], at, flow=flow, serve=False).record()
    else:
        folder = RunFolder(at, run)
    folder.update(state="running", reason="", finished_at=None)
    name_flow_run(folder.run_id)
    record: RunRecord = folder.record(components=True)
    with recorded(folder):
        yield Session(record.recipe, record.pins, folder, record.plan)


def home_at(given: str | None) -> Home:
    """The home that a deployment's parameters or the worker's environment name."""
    return Home.at(given or os.environ.get("LAYERWRIGHT_HOME", HOME))


@contextlib.contextmanager
def local_file(address: str) -> Iterator[Path]:
    """A file that a deployment's parameters name: a path, or a copy of ``s3://bucket/key``.

    Raises:
        InputError: the object cannot be read.
    """
    if not address.startswith("s3://"):
        yield Path(address)
        return
    parsed = urlparse(address)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / Path(parsed.path).name
        try:
            s3_client().download_file(parsed.netloc, parsed.path.lstrip("/"), str(path))
        except S3_ERRORS as error:
            raise InputError(f"{address} cannot be read: {error}") from error
        yield path


def name_flow_run(name: str) -> None:
    """Give the current flow run of Prefect the run's own id as its name."""
    with get_client(sync_client=True) as client:
        client.set_flow_run_name(runtime.flow_run.id, name)


@contextlib.contextmanager
def recorded(folder: RunFolder) -> Iterator[None]:
    """If the block fails, write the reason into the run's record."""
    try:
        with full_disk_as_step_error(folder.path):
            yield
    except LayerwrightError as error:
        _failed(folder, str(error))
        raise
    except KeyboardInterrupt:
        _failed(folder, "interrupted")
        raise
    except Exception as error:
        _failed(folder, f"{type(error).__name__}: {error}")
        raise


def _failed(folder: RunFolder, reason: str) -> None:
    with contextlib.suppress(OSError):  # on a full disk the first error matters more
        folder.finish("failed", reason)


def judged(result: RunSummary | Requalification) -> Any:
    """A flow's return value: the result, in a state named `Rejected` if the gate rejected."""
    if result.decision == "accepted":
        return result
    return Completed(name="Rejected", message="; ".join(result.failed_checks), data=result)
