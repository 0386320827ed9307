"""From a recipe on disk to a flow run: what the commands `convert`, `survey` and `resume` share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerwright.flows.session import embedded
from layerwright.flows.session.runs import RunFolder
from layerwright.tasks.contracts.plan import ConversionPlan
from layerwright.tasks.disk import told_when_full
from layerwright.tasks.errors import InputError, LayerwrightError
from layerwright.tasks.recipe.document import Located
from layerwright.tasks.recipe.recipe import Recipe, load_recipe


@dataclass(frozen=True)
class Launch:
    """A recipe that was read and checked, with its sources pinned."""

    recipe: Recipe
    document: Located
    path: Path
    home: Path
    pins: dict[str, str]
    server: embedded.Server
    plan: ConversionPlan | None = None
    assignments: tuple[str, ...] = ()

    @property
    def place(self) -> Any:
        from layerwright.tasks.orchestration.place import Place

        return Place(
            home=str(self.home),
            store=self.recipe.store or str(self.home / "store"),
            seed=self.recipe.seed,
            compute=self.recipe.compute,
        )


def prepare(
    path: Path,
    overrides: list[str],
    home: Path,
    *,
    flow: str,
    plan: Path | None = None,
    serve: bool = True,
) -> Launch:
    """Read and check everything that can be checked before a run starts.

    A recipe that ran in this home before is known to be good: then the server starts meanwhile
    (unless ``serve`` is False).

    Raises:
        InputError: the first thing that is wrong; nothing was started and nothing written.
    """
    recipe, document = load_recipe(path, overrides)
    home = home.resolve()
    embedded.configure(home)
    server = embedded.Server(home)
    if serve and any(record.recipe == recipe for record in RunFolder.all(home)):
        server.begin()
    try:
        from layerwright.flows.session.preflight import (
            check_plan,
            check_recipe,
            pin_sources,
            sources_of,
        )

        check_recipe(recipe, document, flow=flow)
        chosen = check_plan(plan) if plan else None
        sources = sources_of(recipe, document, flow=flow)
        pins = pin_sources(sources, document)
        launch = Launch(recipe, document, path, home, pins, server, chosen, tuple(overrides))
        _check_missing(launch, sources)
    except BaseException:
        server.end()
        raise
    return launch


def _check_missing(launch: Launch, sources: dict[str, Any]) -> None:
    """Probe the sources whose fetch is not cached: a cached run needs no network."""
    from layerwright.flows.session.preflight import check_sources
    from layerwright.tasks.fetch.task import fetch_model, fetch_text
    from layerwright.tasks.orchestration.place import NotCached, Run

    recipe, pins = launch.recipe, launch.pins
    run = Run(launch.place, dry=True)
    missing = {}
    for where, source in sources.items():
        try:
            if where == "model":
                fetch_model(recipe.model, recipe.data_root, pins[where], run=run)
            else:
                text = recipe.data[where.removeprefix("data.")]
                fetch_text(text, recipe.data_root, pins[where], run=run)
        except NotCached:
            missing[where] = source
    check_sources(missing, launch.document, launch.home)


@contextlib.contextmanager
def recorded(folder: RunFolder) -> Iterator[None]:
    """Note in the run's record how it ended when it does not end well."""
    try:
        with told_when_full(folder.path):
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
    with contextlib.suppress(OSError):  # a full disk: why the run failed matters more
        folder.finish("failed", reason)


def run_convert(launch: Launch, folder: RunFolder | None = None) -> dict[str, Any]:
    """Run the convert flow; with ``folder``, an earlier run goes on under its own id.

    Returns:
        The RunSummary as JSON.
    """
    folder = folder or _new_folder(launch)
    folder.update(state="running", reason="", finished_at=None)
    with recorded(folder), launch.server:
        from layerwright.flows.convert import convert

        summary = convert(launch.recipe, launch.pins, folder.run_id, launch.place, launch.plan)
    return summary.model_dump(mode="json")


def run_survey(launch: Launch) -> dict[str, Any]:
    """Run the survey flow; its result, its page and its plans stay in the run's folder."""
    folder = _new_folder(launch, "survey")
    with recorded(folder), launch.server:
        from layerwright.flows.survey import survey

        return survey(launch.recipe, launch.pins, folder.run_id, launch.place)


def run_requalification(launch: Launch, address: str) -> dict[str, Any]:
    """Run the requalify flow on the version at ``NAME@alias`` or ``NAME/version``."""
    folder = _new_folder(launch, "requalify")
    with recorded(folder), launch.server:
        from layerwright.flows.requalify import requalify

        found = requalify(launch.recipe, launch.pins, folder.run_id, launch.place, address)
    return found.model_dump(mode="json")


def run_comparison(launch: Launch, a: str, b: str) -> dict[str, Any]:
    """Run the compare flow on two versions, runs or folders."""
    folder = _new_folder(launch, "compare")
    with recorded(folder), launch.server:
        from layerwright.flows.compare import compare

        found = compare(launch.recipe, launch.pins, folder.run_id, launch.place, a, b)
    return found.model_dump(mode="json")


def _new_folder(launch: Launch, flow: str = "convert") -> RunFolder:
    return RunFolder.create(
        launch.home, launch.recipe, launch.path, launch.plan, launch.assignments, flow
    )


def relaunch(home: Path, run_id: str) -> tuple[Launch, RunFolder]:
    """An earlier convert run again: the recipe and plan as they were recorded.

    Raises:
        InputError: no such run, or its sources are gone.
    """
    home = home.resolve()
    embedded.configure(home)
    folder = RunFolder.find(home, run_id)
    record = folder.record()
    if record.flow != "convert":
        raise InputError(
            f"run {record.run_id} is no convert run",
            remedy=f"run `layerwright {record.flow}` again",
        )
    from layerwright.flows.session.preflight import pin_sources, sources_of

    document = Located(record.recipe_path, record.recipe_text)
    pins = pin_sources(sources_of(record.recipe, document, flow="convert"), document)
    path, server = Path(record.recipe_path), embedded.Server(home)
    return Launch(record.recipe, document, path, home, pins, server, record.plan), folder
