"""Prepare a run from a recipe file: check everything, and start no step."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from layerwright.flows.session import embedded
from layerwright.flows.session.runs import RunFolder
from layerwright.tasks.contracts.plan import ConversionPlan
from layerwright.tasks.errors import InputError
from layerwright.tasks.home import Home
from layerwright.tasks.recipe.document import Located
from layerwright.tasks.recipe.recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from layerwright.tasks.orchestration.place import Place


@dataclass(frozen=True)
class Prepared:
    """A recipe that was read and checked for one flow, with its sources pinned."""

    recipe: Recipe
    path: Path
    home: Home
    flow: str
    pins: dict[str, str]
    server: embedded.Server
    plan: ConversionPlan | None = None
    assignments: tuple[str, ...] = ()
    earlier: RunFolder | None = None  # the run that continues

    def record(self) -> RunFolder:
        """The run's folder, with the record from which the flow starts."""
        if self.earlier:
            self.earlier.update(pins=self.pins)
            return self.earlier
        same = {name: getattr(self, name) for name in ("plan", "assignments", "flow", "pins")}
        return RunFolder.create(self.home, self.recipe, self.path, **same)


def prepare(
    path: Path,
    overrides: list[str],
    home: Home,
    *,
    flow: str,
    plan: Path | None = None,
    serve: bool = True,
) -> Prepared:
    """Read the recipe and check everything that can be checked before a run starts.

    If this recipe ran in this home before, it is probably right: then the embedded server starts
    during the checks (unless ``serve`` is False). InputError if a check failed; no step has run,
    and nothing was written.
    """
    embedded.configure(home)
    server = embedded.Server(home)
    if serve and _ran_before(path, overrides, home):
        server.begin()
    try:
        recipe, document = load_recipe(path, overrides)
        # late: these import Prefect, whose settings `configure` sets
        from layerwright.flows.session.preflight import check_plan, check_recipe
        from layerwright.flows.session.sources import check_sources, pin_sources, sources_of

        check_recipe(recipe, document, flow=flow)
        chosen = check_plan(plan) if plan else None
        sources = sources_of(recipe, document, flow=flow)
        pins = pin_sources(sources, document)
        fetched = {name for name, pin in pins.items() if _is_fetched(recipe, home, name, pin)}
        check_sources({n: s for n, s in sources.items() if n not in fetched}, document, home)
    except BaseException:
        server.end()
        raise
    return Prepared(recipe, path, home, flow, pins, server, chosen, tuple(overrides))


def prepare_again(home: Home, run_id: str) -> Prepared:
    """Prepare an earlier convert run to continue, with its recorded recipe and plan; InputError if
    the run does not exist, or its sources no longer exist.
    """
    embedded.configure(home)
    folder = RunFolder.find(home, run_id)
    record = folder.record(components=True)
    if record.flow != "convert":
        raise InputError(
            f"run {record.run_id} is a {record.flow} run, and only convert runs are resumed",
            remedy=f"run `layerwright {record.flow}` again",
        )
    from layerwright.flows.session.sources import pin_sources, sources_of

    document = Located(record.recipe_path, record.recipe_text)
    pins = pin_sources(sources_of(record.recipe, document, flow="convert"), document)
    path, more = Path(record.recipe_path), (record.plan, record.assignments, folder)
    return Prepared(record.recipe, path, home, record.flow, pins, embedded.Server(home), *more)


def place_of(recipe: Recipe, home: Home, run_id: str = "") -> "Place":
    """The place of a recipe's run: its store and MLflow, by default those of the home."""
    from layerwright.tasks.orchestration.place import Place

    named = recipe.registry.tracking_uri if recipe.registry else None
    return Place(
        home=str(home),
        store=recipe.store or str(home.store),
        seed=recipe.seed,
        compute=recipe.compute,
        tracking_uri=named or home.tracking_uri,
        run_id=run_id,
    )


def _ran_before(path: Path, overrides: list[str], home: Home) -> bool:
    asked = path.read_bytes() if path.is_file() else None, tuple(overrides)
    return any((r.recipe_text.encode(), r.assignments) == asked for r in RunFolder.all(home))


def _is_fetched(recipe: Recipe, home: Home, name: str, pin: str) -> bool:
    """Whether the fetch of a source is cached, so that it needs no network."""
    from layerwright.tasks.fetch.task import fetch_model, fetch_text

    place, root = place_of(recipe, home), recipe.data_root
    if name == "model":
        return fetch_model.cached_result(recipe.model, root, pin, place=place) is not None
    text = recipe.data[name.removeprefix("data.")]
    return fetch_text.cached_result(text, root, pin, place=place) is not None
