"""Everything that can be known to be wrong before a run starts, found before it starts."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path

from layerwright.flows.session.inputs import evaluated_texts, needed_texts, surveyed_texts
from layerwright.flows.session.pools import check_pools
from layerwright.tasks.choose.base import Selector
from layerwright.tasks.components import Component, build
from layerwright.tasks.contracts.base import Spec
from layerwright.tasks.contracts.plan import ConversionPlan
from layerwright.tasks.convert.plan_file import read_plan
from layerwright.tasks.errors import InputError
from layerwright.tasks.evaluate.base import Metric
from layerwright.tasks.evaluate.suite import build_metrics
from layerwright.tasks.fetch.sources import Source, model_source, text_source
from layerwright.tasks.finetune.objectives.base import Objective
from layerwright.tasks.gate.tiers import NEEDED as NEEDED_BY_TIERS
from layerwright.tasks.profile.base import Profiler
from layerwright.tasks.recipe.choose import ChooseOptions
from layerwright.tasks.recipe.document import Located
from layerwright.tasks.recipe.recipe import Recipe
from layerwright.tasks.strategies.base import Strategy
from layerwright.tasks.tracking import refuse_closed_server, refuse_unreachable

NEEDED = {
    "convert": ("choose", "evaluate", "gate", "registry"),
    "survey": ("survey",),
    "requalify": ("evaluate", "gate", "registry"),
    "compare": ("evaluate", "gate"),
}
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
            raise _at(error, document, f"{where}.{error.where or 'name'}") from error
    _check_rules(recipe, document, flow)
    _check_times(recipe, document)
    if flow in ("convert", "survey"):
        _check_profiled_rows(recipe, document, flow)
    check_pools(recipe, document)
    for where, metrics in _metric_lists(recipe):
        try:
            for index, metric in enumerate(build_metrics(metrics, recipe.data, where=where)):
                _check_forms(metric, recipe, f"{where}.{index}")
        except InputError as error:
            raise _at(error, document, error.where or where) from error


def _check_forms(metric: Metric, recipe: Recipe, where: str) -> None:
    for text in metric.needed_texts():
        form = recipe.data[text].form
        if form != metric.form:
            raise InputError(
                f"metric {metric.name!r} reads {text!r} as {metric.form}, and data.{text} has "
                f"form {form}",
                where=where,
                remedy=f"set data.{text}.form: {metric.form}",
            )


def _check_rules(recipe: Recipe, document: Located, flow: str) -> None:
    """A rule that no metric of the recipe can meet would reject after all the work was done."""
    if recipe.gate is None or recipe.evaluate is None:
        return
    names = [name for spec in recipe.evaluate.metrics for name in build(Metric, spec).names()]
    for part, rules in (("rules", recipe.gate.rules), ("waivers", recipe.gate.waivers)):
        for index, rule in enumerate(rules):
            if not _among(names, rule.metric) and (part == "rules" or recipe.gate.tier is None):
                raise InputError(
                    f"no metric of this recipe measures {rule.metric!r}",
                    where=document.place(("gate", part, index, "metric")),
                    expected=f"one of {', '.join(names)}",
                )
    for index, watched in enumerate(recipe.watch):
        if not _among(names, watched.metric):
            raise InputError(
                f"no metric of this recipe measures {watched.metric!r}",
                where=document.place(("watch", index, "metric")),
                expected=f"one of {', '.join(names)}",
            )
    for index, rule in enumerate(recipe.gate.rules):
        if rule.arm == "control" and (flow == "requalify" or not recipe.evaluate.control):
            what = "a requalification" if flow == "requalify" else "this recipe"
            raise InputError(
                f"the rule compares with a control arm, which {what} does not measure",
                where=document.place(("gate", "rules", index, "arm")),
                remedy="leave the rule out of the recipe that requalifies"
                if flow == "requalify"
                else "set evaluate.control: true",
            )
    for pattern, needed in NEEDED_BY_TIERS.items() if recipe.gate.tier else ():
        if _among(names, pattern) < needed:
            raise InputError(
                f"the tier {recipe.gate.tier!r} needs {needed} of {pattern}, and the recipe's "
                f"metrics measure {_among(names, pattern)}",
                where=document.place(("gate", "tier")),
                remedy="add the metric, or give rules instead of a tier",
            )


def _among(names: list[str], pattern: str) -> int:
    return sum(fnmatchcase(name, pattern) for name in names)


def _check_times(recipe: Recipe, document: Located) -> None:
    """A selector that needs measured times would find none after the layers were profiled."""
    for where, options in _choices(recipe):
        if not build(Selector, options.selector).needs_times:
            continue
        tokens = options.context_tokens
        if recipe.costs and tokens in (recipe.costs.context_tokens or (tokens,)):
            continue
        raise InputError(
            f"a budget of time needs measured times at {tokens:,} tokens",
            where=document.place((*where.split("."), "selector")),
            remedy=f"add {tokens} to costs.context_tokens"
            if recipe.costs
            else f"add `costs: {{context_tokens: [{tokens}]}}` to the recipe",
        )


def _check_profiled_rows(recipe: Recipe, document: Located, flow: str) -> None:
    """A profile of too few rows would be refused after the model was fetched."""
    choices = [recipe.choose] if flow == "convert" else recipe.survey.plans.values()
    fits = any(build(Strategy, spec).fits for options in choices for spec in options.strategies)
    profile = recipe.profile
    for spec in profile.profilers:
        try:
            build(Profiler, spec).check_rows(profile.rows, profile.row_tokens, fits=fits)
        except InputError as error:
            raise _at(error, document, error.where or "profile") from error


def _check_registry(recipe: Recipe, document: Located) -> None:
    if recipe.registry is None or recipe.registry.tracking_uri is None:
        return
    uri, store = recipe.registry.tracking_uri, recipe.store or "the home folder"
    try:
        refuse_unreachable(uri, store if store.startswith("s3:") else f"file:{store}")
        if uri.startswith(("http://", "https://")):
            refuse_closed_server(uri)
    except InputError as error:
        place = document.place(("registry", "tracking_uri"))
        raise InputError(
            error.message, where=place, expected=error.expected, remedy=error.remedy
        ) from error


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


def _choices(recipe: Recipe) -> Iterator[tuple[str, ChooseOptions]]:
    """Every choice of a plan with its place; points of the frontier stand at their plan's."""
    if recipe.choose:
        yield "choose", recipe.choose
    if recipe.survey:
        for name, plan in recipe.survey.plans.items():
            yield f"survey.plans.{name}", plan
        for point in recipe.survey.points().values():
            yield f"survey.plans.{recipe.survey.frontier_plan}", point


def _components(recipe: Recipe) -> Iterator[tuple[type[Component], Spec, str]]:
    for index, spec in enumerate(recipe.profile.profilers):
        yield Profiler, spec, f"profile.profilers.{index}"
    for where, options in _choices(recipe):
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
    elif flow in ("requalify", "compare"):
        texts = evaluated_texts(recipe)
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
            raise _at(error, document, f"{where}.source") from error
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
            raise _at(error, document, f"{where}.source") from error
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
            raise _at(error, document, f"{where}.source") from error
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
        where=document.place(tuple(_path(where))),
        expected=error.expected,
        remedy=error.remedy,
    )
