"""A session: one run of a flow, with its recipe, its pinned sources, its folder and its record."""

import contextlib
import os
import platform
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from prefect import runtime
from prefect.client.orchestration import get_client
from prefect.states import Completed

from layerwright.flows.session.prepare import place_of, prepare
from layerwright.flows.session.runs import RunFolder
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

PACKAGES = "layerwright prefect mlflow torch transformers peft triton datasets boto3"


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
        uri, store = self.tracking_uri, self.open_store()
        return current_champion(options, tracking_uri=uri, base_sha256=base.sha256, store=store)


@contextlib.contextmanager
def session(
    flow: str, recipe: str, assignments: list[str] | None, home: str | None, run: str | None
) -> Iterator[Session]:
    """Open the session of the flow run that calls this, and record how the run ends.

    Args:
        recipe, assignments, home: as for the flow `convert`.
        run: the id of a run that is prepared and recorded in the home already; the recipe and its
            changes are then those of the record.

    InputError if the recipe is wrong, or a source is missing.
    """
    at = home_at(home)
    if run is None:
        with local_file(recipe) as path:
            folder = prepare(path, assignments or [], at, flow=flow, serve=False).record()
    else:
        folder = RunFolder(at, run)
    folder.update(state="running", reason="", finished_at=None)
    with get_client(sync_client=True) as client:
        client.set_flow_run_name(runtime.flow_run.id, folder.run_id)
    record = folder.record(components=True)
    try:
        with full_disk_as_step_error(folder.path):
            yield Session(record.recipe, record.pins, folder, record.plan)
    except (Exception, KeyboardInterrupt) as error:
        reason = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error)
        if not isinstance(error, LayerwrightError | KeyboardInterrupt):
            reason = f"{type(error).__name__}: {error}"
        with contextlib.suppress(OSError):  # on a full disk the first error matters more
            folder.finish("failed", reason)
        raise


def home_at(given: str | None) -> Home:
    """The home that a deployment's parameters or the worker's environment name."""
    return Home.at(given or os.environ.get("LAYERWRIGHT_HOME", ".layerwright"))


@contextlib.contextmanager
def local_file(address: str) -> Iterator[Path]:
    """A file that a deployment's parameters name: a path, or a copy of ``s3://bucket/key``;
    InputError if the object cannot be read.
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


def judged(result: RunSummary | Requalification) -> Any:
    """A flow's return value: the result, in a state named `Rejected` if the gate rejected."""
    if result.decision == "accepted":
        return result
    return Completed(name="Rejected", message="; ".join(result.failed_checks), data=result)


def versions() -> dict[str, str]:
    """Version of Python and of each package that numbers can depend on, for reports."""
    found = {"python": platform.python_version()}
    for name in PACKAGES.split():
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
