"""Check before a run starts what the types of its recipe cannot check."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from layerwright.flows.session.needs import NEEDED_BLOCKS
from layerwright.flows.session.pools import check_pools
from layerwright.tasks.contracts.gate import Waiver
from layerwright.tasks.contracts.plan import ConversionPlan
from layerwright.tasks.convert.plan_file import read_plan
from layerwright.tasks.errors import InputError
from layerwright.tasks.evaluate.suite import check_metrics
from layerwright.tasks.gate.tiers import REQUIRED_METRICS
from layerwright.tasks.recipe.choose import ChooseOptions
from layerwright.tasks.recipe.document import Located
from layerwright.tasks.recipe.gate import GateRule
from layerwright.tasks.recipe.recipe import Recipe
from layerwright.tasks.strategies.specs import strategy_of
from layerwright.tasks.tracking import refuse_closed_server, refuse_unreachable


def check_recipe(recipe: Recipe, document: Located, *, flow: str) -> None:
    """Check what the recipe's own types cannot: parts that a flow needs, texts, rules, pools.

    Raises:
        InputError: with file, line and field.
    """
    for name in NEEDED_BLOCKS[flow]:
        if getattr(recipe, name) is None:
            raise InputError(
                f"`layerwright {flow}` needs the field {name!r}", where=f"{document.path}:1"
            )
    _check_registry(recipe, document)
    _check_frontier(recipe, document)
    _check_rules(recipe, document, flow)
    _check_times(recipe, document)
    if flow in ("convert", "survey"):
        _check_profiled_rows(recipe, document, flow)
    check_pools(recipe, document)
    for block in ("evaluate", "survey"):
        if options := getattr(recipe, block):
            try:
                check_metrics(options.metrics, recipe.data, where=f"{block}.metrics")
            except InputError as error:
                raise at_line(error, document, error.where or block) from error


def _check_frontier(recipe: Recipe, document: Located) -> None:
    """The selector of the frontier's plan must have the budget that the points set."""
    if recipe.survey is None:
        return
    try:
        recipe.survey.points()
    except InputError as error:
        place = f"survey.plans.{recipe.survey.frontier_plan}.selector.{error.where}"
        raise at_line(error, document, place) from error


def _check_rules(recipe: Recipe, document: Located, flow: str) -> None:
    """Refuse a rule for a metric that is not measured: it would reject after all the work."""
    if recipe.gate is None or recipe.evaluate is None:
        return
    names = [name for metric in recipe.evaluate.metrics for name in metric.names()]
    checked: tuple[tuple[str, Sequence[GateRule | Waiver]], ...] = (
        ("rules", recipe.gate.rules),
        ("waivers", recipe.gate.waivers),
    )
    for part, rules in checked:
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
        if not options.selector.needs_times:
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
    choices: Iterable[ChooseOptions] = ()
    if flow == "convert" and recipe.choose:
        choices = (recipe.choose,)
    elif recipe.survey:
        choices = recipe.survey.plans.values()
    fits = any(strategy.fits for options in choices for strategy in options.strategies)
    profile = recipe.profile
    for profiler in profile.profilers:
        try:
            profiler.check_rows(profile.rows, profile.row_tokens, fits=fits)
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
            strategy_of(item)
        except InputError as error:
            raise at_line(error, document, f"items.{index}") from error
    return plan


def _path(dotted: str) -> Iterator[str | int]:
    for part in dotted.split("."):
        yield int(part) if part.isdigit() else part


def _choices(recipe: Recipe) -> Iterator[tuple[str, ChooseOptions]]:
    """Every choice of a plan with its place; points of the frontier have their plan's place."""
    if recipe.choose:
        yield "choose", recipe.choose
    if recipe.survey:
        for name, plan in recipe.survey.plans.items():
            yield f"survey.plans.{name}", plan
        for point in recipe.survey.points().values():
            yield f"survey.plans.{recipe.survey.frontier_plan}", point


def at_line(error: InputError, document: Located, where: str) -> InputError:
    """The same error with the file and line of a recipe's field, ``a.b.0``."""
    return error.at(document.place(tuple(_path(where))))
