"""Check before a run starts what the types of its recipe cannot check."""

from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from layerwright.flows.session.prefect_server import check_pools
from layerwright.tasks.contracts.plan import ConversionPlan
from layerwright.tasks.convert.plan_file import read_plan
from layerwright.tasks.errors import InputError
from layerwright.tasks.evaluate.suite import check_metrics
from layerwright.tasks.gate.tiers import REQUIRED_METRICS
from layerwright.tasks.recipe.choose import ChooseOptions
from layerwright.tasks.recipe.document import Located
from layerwright.tasks.recipe.recipe import Recipe
from layerwright.tasks.strategies.specs import strategy_of
from layerwright.tasks.tracking import refuse_closed_server, refuse_unreachable

NEEDED_BLOCKS = {
    "convert": ("choose", "evaluate", "gate", "registry"),
    "survey": ("survey",),
    "requalify": ("evaluate", "gate", "registry"),
    "compare": ("evaluate", "gate"),
}


@contextmanager
def located(document: Located, where: str = "") -> Iterator[None]:
    """Give an InputError in the block the file and line of the recipe's field ``where``: ``a.b.0``;
    if empty or ``a.b.``, the error's own field completes it.
    """
    try:
        yield
    except InputError as error:
        dotted = where if where and not where.endswith(".") else f"{where}{error.where}"
        place = tuple(int(part) if part.isdigit() else part for part in dotted.split("."))
        raise error.at(document.place(place)) from error


def check_recipe(recipe: Recipe, document: Located, *, flow: str) -> None:
    """Check what the recipe's own types cannot: parts that a flow needs, texts, rules, pools;
    InputError with file, line and field.
    """
    for name in NEEDED_BLOCKS[flow]:
        if getattr(recipe, name) is None:
            raise InputError(
                f"`layerwright {flow}` needs the field {name!r}", where=f"{document.path}:1"
            )
    with located(document, "registry.tracking_uri"):
        _check_registry(recipe)
    if recipe.survey:  # the frontier's selector must have the budget that the points set
        with located(document, f"survey.plans.{recipe.survey.frontier_plan}.selector."):
            recipe.survey.points()
    _check_rules(recipe, document, flow)
    _check_times(recipe, document)
    with located(document):
        _check_profiled_rows(recipe, flow)
    check_pools(recipe, document)
    for block in ("evaluate", "survey"):
        if options := getattr(recipe, block):
            with located(document):
                check_metrics(options.metrics, recipe.data, where=f"{block}.metrics")


def _check_rules(recipe: Recipe, document: Located, flow: str) -> None:
    """Refuse a rule for a metric that is not measured: it would reject after all the work."""
    if recipe.gate is None or recipe.evaluate is None:
        return
    gate, names = recipe.gate, [n for metric in recipe.evaluate.metrics for n in metric.names()]
    named: dict[tuple[str | int, ...], str] = {}
    named |= {("gate", "rules", i): rule.metric for i, rule in enumerate(gate.rules)}
    if gate.tier is None:
        named |= {("gate", "waivers", i): waiver.metric for i, waiver in enumerate(gate.waivers)}
    named |= {("watch", i): watched.metric for i, watched in enumerate(recipe.watch)}
    for place, metric in named.items():
        if not _among(names, metric):
            raise InputError(
                f"no metric of this recipe measures {metric!r}",
                where=document.place((*place, "metric")),
                expected=f"one of {', '.join(names)}",
            )
    for index, rule in enumerate(gate.rules):
        if rule.arm == "control" and (flow == "requalify" or not recipe.evaluate.control):
            what, remedy = "this recipe", "set evaluate.control: true"
            if flow == "requalify":
                what = "a requalification"
                remedy = "leave the rule out of the recipe that requalifies"
            raise InputError(
                f"the rule compares with a control arm, which {what} does not measure",
                where=document.place(("gate", "rules", index, "arm")),
                remedy=remedy,
            )
    for pattern, needed in REQUIRED_METRICS.items() if gate.tier else ():
        if (measured := _among(names, pattern)) < needed:
            raise InputError(
                f"the tier {gate.tier!r} needs {needed} of {pattern}, and the recipe's "
                f"metrics measure {measured}",
                where=document.place(("gate", "tier")),
                remedy="add the metric, or give rules instead of a tier",
            )


def _among(names: list[str], pattern: str) -> int:
    return sum(fnmatchcase(name, pattern) for name in names)


def _check_times(recipe: Recipe, document: Located) -> None:
    """Refuse a selector that needs measured times if the recipe measures none."""
    choices: list[tuple[tuple[str, ...], ChooseOptions]] = []
    if recipe.choose:
        choices.append((("choose",), recipe.choose))
    if survey := recipe.survey:
        choices += [(("survey", "plans", name), plan) for name, plan in survey.plans.items()]
        at = ("survey", "plans", str(survey.frontier_plan))
        choices += [(at, point) for point in survey.points().values()]
    for where, options in choices:
        tokens, costs = options.context_tokens, recipe.costs
        measured = costs is not None and tokens in (costs.context_tokens or (tokens,))
        if options.selector.needs_times and not measured:
            block = f"add `costs: {{context_tokens: [{tokens}]}}` to the recipe"
            raise InputError(
                f"a budget of time needs measured times at {tokens:,} tokens",
                where=document.place((*where, "selector")),
                remedy=f"add {tokens} to costs.context_tokens" if costs else block,
            )


def _check_profiled_rows(recipe: Recipe, flow: str) -> None:
    """Refuse a profile of too few rows, which would fail after the model was fetched."""
    choices: list[ChooseOptions] = []
    if flow == "convert" and recipe.choose:
        choices = [recipe.choose]
    elif flow == "survey" and recipe.survey:
        choices = list(recipe.survey.plans.values())
    fits = any(strategy.fits for options in choices for strategy in options.strategies)
    profile = recipe.profile
    for profiler in profile.profilers if choices else ():
        profiler.check_rows(profile.rows, profile.row_tokens, fits=fits)


def _check_registry(recipe: Recipe) -> None:
    if recipe.registry is None or recipe.registry.tracking_uri is None:
        return
    uri, store = recipe.registry.tracking_uri, recipe.store or "the home folder"
    refuse_unreachable(uri, store if store.startswith("s3:") else f"file:{store}")
    if uri.startswith(("http://", "https://")):
        refuse_closed_server(uri)


def check_plan(path: Path) -> ConversionPlan:
    """Read an edited plan and check its strategies; InputError with file, line and field."""
    plan, document = read_plan(path), Located(path)
    for index, item in enumerate(plan.items):
        with located(document, f"items.{index}"):
            strategy_of(item)
    return plan
