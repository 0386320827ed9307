"""Checks of a recipe before a run starts, for everything that its own types cannot check."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from layerwright.flows.session.needs import NEEDED_BLOCKS
from layerwright.flows.session.pools import check_pools
from layerwright.tasks.choose.base import Selector
from layerwright.tasks.components import Component, build
from layerwright.tasks.contracts.base import Spec
from layerwright.tasks.contracts.plan import ConversionPlan
from layerwright.tasks.convert.plan_file import read_plan
from layerwright.tasks.errors import InputError
from layerwright.tasks.evaluate.base import Metric
from layerwright.tasks.evaluate.suite import build_metrics
from layerwright.tasks.finetune.objectives.base import Objective
from layerwright.tasks.gate.tiers import REQUIRED_METRICS
from layerwright.tasks.profile.base import Profiler
from layerwright.tasks.recipe.choose import ChooseOptions
from layerwright.tasks.recipe.document import Located
from layerwright.tasks.recipe.recipe import Recipe
from layerwright.tasks.strategies.base import Strategy
from layerwright.tasks.tracking import refuse_closed_server, refuse_unreachable


def check_recipe(recipe: Recipe, document: Located, *, flow: str) -> None:
    """Check what the recipe's own types cannot: parts that a flow needs, components, texts.

    Raises:
        InputError: with file, line and field.
    """
    for name in NEEDED_BLOCKS[flow]:
        if getattr(recipe, name) is None:
            raise InputError(
                f"`layerwright {flow}` needs the field {name!r}", where=f"{document.path}:1"
            )
    _check_registry(recipe, document)
    for kind, spec, where in _components(recipe):
        try:
            build(kind, spec)
        except InputError as error:
            raise at_line(error, document, f"{where}.{error.where or 'name'}") from error
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
            raise at_line(error, document, error.where or where) from error


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
    """Refuse a rule for a metric that is not measured: it would reject after all the work."""
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
    for pattern, needed in REQUIRED_METRICS.items() if recipe.gate.tier else ():
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
    """Refuse a selector that needs measured times if the recipe measures none."""
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
    """Refuse a profile of too few rows, which would fail after the model was fetched."""
    choices = [recipe.choose] if flow == "convert" else recipe.survey.plans.values()
    fits = any(build(Strategy, spec).fits for options in choices for spec in options.strategies)
    profile = recipe.profile
    for spec in profile.profilers:
        try:
            build(Profiler, spec).check_rows(profile.rows, profile.row_tokens, fits=fits)
        except InputError as error:
            raise at_line(error, document, error.where or "profile") from error


def _check_registry(recipe: Recipe, document: Located) -> None:
    if recipe.registry is None or recipe.registry.tracking_uri is None:
        return
    uri, store = recipe.registry.tracking_uri, recipe.store or "the home folder"
    try:
        refuse_unreachable(uri, store if store.startswith("s3:") else f"file:{store}")
        if uri.startswith(("http://", "https://")):
            refuse_closed_server(uri)
    except InputError as error:
        raise at_line(error, document, "registry.tracking_uri") from error


def check_plan(path: Path) -> ConversionPlan:
    """Read an edited plan; check its strategies and their options.

    Raises:
        InputError: with file, line and field.
    """
    plan = read_plan(path)
    document = Located(path)
    for index, item in enumerate(plan.items):
        try:
            build(Strategy, item.spec)
        except InputError as error:
            raise at_line(error, document, f"items.{index}") from error
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
    """Every choice of a plan with its place; points of the frontier have their plan's place."""
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


def at_line(error: InputError, document: Located, where: str) -> InputError:
    """The same error with the file and line of a recipe's field, ``a.b.0``."""
    return InputError(
        error.message,
        where=document.place(tuple(_path(where))),
        expected=error.expected,
        remedy=error.remedy,
    )
