"""Everything that can be known to be wrong before a run starts, found before it starts."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path

from flows.inputs import needed_texts, surveyed_texts, texts_of
from tasks.choose.base import Selector
from tasks.contracts import ConversionPlan, Spec
from tasks.convert.plan_file import read_plan
from tasks.errors import InputError
from tasks.evaluate.base import Metric
from tasks.fetch.sources import Source, model_source, text_source
from tasks.finetune.objectives.base import Objective
from tasks.located import Located
from tasks.profile.base import Profiler
from tasks.recipe import Recipe
from tasks.registry import Component, build
from tasks.strategies.base import Strategy
from tasks.tracking import refuse_unreachable

NEEDED = {"convert": ("choose", "evaluate", "gate", "registry"), "survey": ("survey",)}
WORKING_ROOM = 3  # copies of the model on disk at once: base, converted, tuned


def check_recipe(recipe: Recipe, document: Located, *, flow: str) -> None:
    """Check what the recipe's own types cannot: parts that a flow needs, components, texts.

    Raises:
        InputError: with file, line and field.
    """
    for name in NEEDED[flow]:
        if getattr(recipe, name) is None:
            raise InputError(
                f"`layerwright {flow}` needs the field {name!r}", where=f"{document.path}:1"
            )
    _check_registry(recipe, document)
    for kind, spec, where in _components(recipe):
        try:
            build(kind, spec)
        except InputError as error:
            field = f".{error.where}" if error.where else ".name"
            place = document.place(tuple(_path(where + field)))
            raise InputError(
                error.message, where=place, expected=error.expected, remedy=error.remedy
            ) from error
    _check_rules(recipe, document)
    for where, metrics in _metric_lists(recipe):
        for index, spec in enumerate(metrics):
            for text in texts_of((spec,)):
                if text not in recipe.data:
                    raise InputError(
                        f"metric {spec.name!r} names the text {text!r}",
                        where=document.place((*where.split("."), index)),
                        expected=f"one of {', '.join(recipe.data)}",
                    )


def _check_rules(recipe: Recipe, document: Located) -> None:
    """A rule that no metric of the recipe can meet would reject after all the work was done."""
    if recipe.gate is None or recipe.evaluate is None:
        return
    names = [name for spec in recipe.evaluate.metrics for name in build(Metric, spec).names()]
    for index, rule in enumerate(recipe.gate.rules):
        if not any(fnmatchcase(name, rule.metric) for name in names):
            raise InputError(
                f"no metric of this recipe measures {rule.metric!r}",
                where=document.place(("gate", "rules", index, "metric")),
                expected=f"one of {', '.join(names)}",
            )


def _check_registry(recipe: Recipe, document: Located) -> None:
    if recipe.registry is None or recipe.registry.tracking_uri is None:
        return
    store = recipe.store or "the home folder"
    try:
        refuse_unreachable(
            recipe.registry.tracking_uri, store if store.startswith("s3:") else f"file:{store}"
        )
    except InputError as error:
        place = document.place(("registry", "tracking_uri"))
        raise InputError(error.message, where=place, remedy=error.remedy) from error


def check_plan(path: Path) -> ConversionPlan:
    """Read a plan that a person edited; check its strategies and their options.

    Raises:
        InputError: with file, line and field.
    """
    plan = read_plan(path)
    document = Located(path)
    for index, item in enumerate(plan.items):
        try:
            build(Strategy, item.spec)
        except InputError as error:
            where = document.place(("items", index))
            raise InputError(
                error.message, where=where, expected=error.expected, remedy=error.remedy
            ) from error
    return plan


def _path(dotted: str) -> Iterator[str | int]:
    for part in dotted.split("."):
        yield int(part) if part.isdigit() else part


def _metric_lists(recipe: Recipe) -> Iterator[tuple[str, tuple[Spec, ...]]]:
    if recipe.evaluate:
        yield "evaluate.metrics", recipe.evaluate.metrics
    if recipe.survey:
        yield "survey.metrics", recipe.survey.metrics


def _components(recipe: Recipe) -> Iterator[tuple[type[Component], Spec, str]]:
    for index, spec in enumerate(recipe.profile.profilers):
        yield Profiler, spec, f"profile.profilers.{index}"
    chosen = {"choose": recipe.choose} if recipe.choose else {}
    if recipe.survey:
        chosen |= {f"survey.plans.{name}": plan for name, plan in recipe.survey.plans.items()}
    for where, options in chosen.items():
        yield Selector, options.selector, f"{where}.selector"
        for index, spec in enumerate(options.strategies):
            yield Strategy, spec, f"{where}.strategies.{index}"
    for at, stage in enumerate(recipe.finetune.stages if recipe.finetune else ()):
        for index, spec in enumerate(stage.objectives):
            yield Objective, spec, f"finetune.stages.{at}.objectives.{index}"
    for where, metrics in _metric_lists(recipe):
        for index, spec in enumerate(metrics):
            yield Metric, spec, f"{where}.{index}"


def sources_of(recipe: Recipe, document: Located, *, flow: str) -> dict[str, Source]:
    """Every source that a flow will read: ``model`` and ``data.<name>``.

    Raises:
        InputError: a source that no kind understands, with file and line.
    """
    if flow == "survey":
        assert recipe.survey is not None
        texts = surveyed_texts(recipe)
    else:
        texts = needed_texts(recipe)
    bind: dict[str, Callable[[], Source]] = {
        "model": lambda: model_source(recipe.model, recipe.data_root)
    }
    for name in texts:
        bind[f"data.{name}"] = lambda name=name: text_source(recipe.data[name], recipe.data_root)
    found = {}
    for where, make in bind.items():
        try:
            found[where] = make()
        except InputError as error:
            raise _at(error, document, where) from error
    return found


def pin_sources(sources: dict[str, Source], document: Located) -> dict[str, str]:
    """The identity of each source, for the cache keys.

    Raises:
        InputError: a source that does not exist.
    """
    pins = {}
    for where, source in sources.items():
        try:
            pins[where] = source.identity()
        except InputError as error:
            raise _at(error, document, where) from error
    return pins


def check_sources(sources: dict[str, Source], document: Located, home: Path) -> int:
    """Ask each source whether it exists and how large it is; check the disk.

    Returns:
        Bytes that may be downloaded (0 where a source cannot say).

    Raises:
        InputError: a missing source or too little disk.
    """
    sizes = {}
    with ThreadPoolExecutor() as pool:  # each probe waits for an index
        probes = {where: pool.submit(source.size_bytes) for where, source in sources.items()}
    for where, probe in probes.items():
        try:
            sizes[where] = probe.result() or 0
        except InputError as error:
            raise _at(error, document, where) from error
    total = sum(sizes.values())
    # a quantised source grows up to eight times when its tensors are widened
    needed = total + WORKING_ROOM * 8 * sizes.get("model", 0)
    check_disk(home, needed)
    return total


def check_disk(home: Path, needed: int) -> None:
    """Raise InputError where the disk under ``home`` has fewer than ``needed`` bytes free."""
    existing = next(p for p in (home, *home.parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise InputError(
            f"not enough disk under {home}: {free / 1e9:.1f} GB free",
            expected=f"{needed / 1e9:.1f} GB for sources, base and converted checkpoints",
            remedy="free some space, or give another folder with --home",
        )


def _at(error: InputError, document: Located, where: str) -> InputError:
    return InputError(
        error.message,
        where=document.place((*where.split("."), "source")),
        expected=error.expected,
        remedy=error.remedy,
    )
