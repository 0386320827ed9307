"""The summary at the top of the survey page: the plan that loses least at the same budget."""

from layerwright.tasks.contracts.plan import FrontierBudget
from layerwright.tasks.report.bundle import SurveyBundle
from layerwright.tasks.report.dots import interval_text
from layerwright.tasks.report.formats import percent
from layerwright.tasks.report.measurements import Row
from layerwright.tasks.report.survey_plans import PlanRow

PREFERRED = ("perplexity_ratio", "perplexity", "kl_mean")  # a paired ratio separates plans best
SAME_BUDGET = 0.005  # plans within this share of the base's KV bytes have the same budget
BUDGETS: dict[FrontierBudget, str] = {
    "kv_bytes_ratio": "KV bytes",
    "prefill_seconds_ratio": "predicted prefill time",
    "decode_seconds_ratio": "predicted time per token",
}


def headline(metrics: list[Row], plans: list[PlanRow]) -> Row | None:
    """The metric that ranks the plans; None if nothing was measured."""
    known = [row for row in metrics if any(p.value(row.metric) is not None for p in plans)]
    preferred = (row for family in PREFERRED for row in known if row.family == family)
    return next(preferred, known[0] if known else None)


def compared(bundle: SurveyBundle, plans: list[PlanRow]) -> str:
    """A sentence on what the survey compares."""
    points = sum(p.entry.budget is not None for p in plans)
    chosen = len(plans) - points
    frontier = f" and {points} points of the frontier" if points else ""
    return (
        f"{chosen} plans{frontier} for {bundle.model.source}. Each was applied to the base without "
        f"training and measured on the same tokens, on {bundle.comparison.device}."
    )


def best_first(plans: list[PlanRow], metric: Row) -> list[PlanRow]:
    """The plans with a value of ``metric``, best first; ties in the survey's order."""
    sign = -1 if metric.any.higher_is_better else 1
    known = [p for p in plans if p.value(metric.metric) is not None]
    return sorted(known, key=lambda p: sign * (p.value(metric.metric) or 0.0))


def at_equal_budget(plans: list[PlanRow], metric: Row) -> list[str]:
    """One sentence per budget that several plans have in common, best plan first."""
    sentences = []
    for ratio, group in _groups([p for p in plans if p.entry.budget is None]):
        ranked = best_first(group, metric)
        figures = [f"{p.name} {_figure(p, metric)}" for p in ranked]
        verdict = _separation(ranked[0], ranked[1], metric)
        sentences.append(f"At {percent(ratio)} of the KV bytes: {', '.join(figures)}{verdict}.")
    return sentences


def along_the_frontier(plans: list[PlanRow], metric: Row, budget: FrontierBudget) -> str | None:
    """A sentence on the points of the frontier; None if the survey has no frontier."""
    known = [p for p in plans if p.entry.budget is not None and p.share is not None]
    points = [p for p in known if p.value(metric.metric) is not None]
    if not points:
        return None
    points.sort(key=lambda p: -(p.share or 0.0))
    figures = ", ".join(f"{_figure(p, metric)} at {percent(p.share)}" for p in points)
    return f"{metric.metric} of {points[0].selector}: {figures} of the {BUDGETS[budget]}."


def _groups(plans: list[PlanRow]) -> list[tuple[float, list[PlanRow]]]:
    """Groups of plans that need the same KV bytes, largest budget first.

    Plans that convert nothing, and groups of one plan, are left out.
    """
    groups: list[tuple[float, list[PlanRow]]] = []
    comparable = [p for p in plans if p.entry.converted_layers and p.kv_ratio is not None]
    for plan in sorted(comparable, key=lambda p: -(p.kv_ratio or 0.0)):
        if groups and groups[-1][0] - (plan.kv_ratio or 0.0) <= SAME_BUDGET:
            groups[-1][1].append(plan)
        else:
            groups.append((plan.kv_ratio or 0.0, [plan]))
    return [(ratio, group) for ratio, group in groups if len(group) > 1]


def _figure(plan: PlanRow, metric: Row) -> str:
    measured = plan.measured[metric.metric]
    return interval_text(measured.value, measured.low, measured.high)


def _separation(first: PlanRow, second: PlanRow, metric: Row) -> str:
    """Whether the intervals of the two best plans overlap."""
    if second.same_as == first.name or first.same_as == second.name:
        return "; the first two are the same plan"
    a, b = first.measured[metric.metric], second.measured[metric.metric]
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return ""
    if a.high < b.low or b.high < a.low:
        return "; the intervals of the first two do not overlap"
    return "; the intervals of the first two overlap, so more tokens are needed to rank them"
