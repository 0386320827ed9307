"""What a reader of a survey wants to know first: which plan loses least at the same budget."""

from __future__ import annotations

from layerwright.tasks.contracts.plan import FrontierBudget
from layerwright.tasks.report.bundle import SurveyBundle
from layerwright.tasks.report.dots import interval_text
from layerwright.tasks.report.formats import percent
from layerwright.tasks.report.measurements import Row
from layerwright.tasks.report.survey_plans import PlanRow

PREFERRED = ("perplexity_ratio", "perplexity", "kl_mean")  # a paired ratio tells most apart
SAME_BUDGET = 0.005  # of the base's KV bytes
BUDGETS: dict[FrontierBudget, str] = {
    "kv_bytes_ratio": "KV bytes",
    "prefill_seconds_ratio": "predicted time to read",
    "decode_seconds_ratio": "predicted time per token",
}


def headline(metrics: list[Row], plans: list[PlanRow]) -> Row | None:
    """The metric that plans are ranked by: None where nothing was measured."""
    known = [row for row in metrics if any(p.value(row.metric) is not None for p in plans)]
    for family in PREFERRED:
        for row in known:
            if row.family == family:
                return row
    return known[0] if known else None


def compared(bundle: SurveyBundle, plans: list[PlanRow]) -> str:
    points = sum(p.made.budget is not None for p in plans)
    chosen = len(plans) - points
    frontier = f" and {points} points of the frontier" if points else ""
    return (
        f"{chosen} plans{frontier} for {bundle.model.source}, each put on the untouched base, "
        f"without any training, and measured on the same tokens on {bundle.comparison.device}."
    )


def best_first(plans: list[PlanRow], metric: Row) -> list[PlanRow]:
    """The plans that have a figure of ``metric``, best first; equal ones in the survey's order."""
    sign = -1 if metric.any.higher_is_better else 1
    known = [p for p in plans if p.value(metric.metric) is not None]
    return sorted(known, key=lambda p: sign * (p.value(metric.metric) or 0.0))


def at_equal_budget(plans: list[PlanRow], metric: Row) -> list[str]:
    """One sentence for each budget that different plans of the survey share, best plan first."""
    sentences = []
    for ratio, group in _groups([p for p in plans if p.made.budget is None]):
        ranked = best_first(group, metric)
        named = [f"{p.name} {_figure(p, metric)}" for p in ranked]
        verdict = _apart(ranked[0], ranked[1], metric)
        sentences.append(f"At {percent(ratio)} of the KV bytes: {', '.join(named)}{verdict}.")
    return sentences


def along_the_frontier(plans: list[PlanRow], metric: Row, budget: FrontierBudget) -> str | None:
    """The ends of the frontier, or None where the survey has none."""
    points = [
        p
        for p in plans
        if p.made.budget is not None and p.share is not None
        and p.value(metric.metric) is not None
    ]  # fmt: skip
    if not points:
        return None
    points.sort(key=lambda p: -(p.share or 0.0))
    told = [f"{_figure(p, metric)} at {percent(p.share)}" for p in points]
    return f"{metric.metric} of {points[0].selector}: {', '.join(told)} of the {BUDGETS[budget]}."


def _groups(plans: list[PlanRow]) -> list[tuple[float, list[PlanRow]]]:
    """Different plans that convert something and take the same KV bytes, dearest budget first."""
    groups: list[tuple[float, list[PlanRow]]] = []
    able = [p for p in plans if p.made.converted_layers and p.kv_ratio is not None]
    for plan in sorted(able, key=lambda p: -(p.kv_ratio or 0.0)):
        if groups and groups[-1][0] - (plan.kv_ratio or 0.0) <= SAME_BUDGET:
            groups[-1][1].append(plan)
        else:
            groups.append((plan.kv_ratio or 0.0, [plan]))
    return [(ratio, group) for ratio, group in groups if len(group) > 1]


def _figure(plan: PlanRow, metric: Row) -> str:
    found = plan.measured[metric.metric]
    return interval_text(found.value, found.low, found.high)


def _apart(first: PlanRow, second: PlanRow, metric: Row) -> str:
    """Whether the first two can be told apart by their intervals."""
    if second.same_as == first.name or first.same_as == second.name:
        return "; the first two are the same plan"
    a, b = first.measured[metric.metric], second.measured[metric.metric]
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return ""
    if a.high < b.low or b.high < a.low:
        return "; the intervals of the first two do not overlap"
    return "; the intervals of the first two overlap, so these tokens do not tell them apart"
