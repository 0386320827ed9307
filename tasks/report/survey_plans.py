"""The plans of a survey: table rows, choices from a second text, and the page's summary."""

from typing import NamedTuple

from layerwright.tasks.contracts.costs import planned_ratio, planned_time
from layerwright.tasks.contracts.evaluation import Measurement
from layerwright.tasks.contracts.plan import FrontierBudget
from layerwright.tasks.contracts.survey import PlanOverlap, overlap
from layerwright.tasks.report.bundle import SurveyBundle, SurveyPlan
from layerwright.tasks.report.dots import interval_text
from layerwright.tasks.report.formats import MISSING, options, percent, quantity
from layerwright.tasks.report.layers import LayerRun, plan_strip
from layerwright.tasks.report.looks import Look, looks
from layerwright.tasks.report.measurements import Row, rows_of
from layerwright.tasks.report.verdict import plan_sentence

FAMILIES = ("perplexity_ratio", "kl_mean")
PREFERRED = ("perplexity_ratio", "perplexity", "kl_mean")  # a paired ratio separates plans best
SAME_BUDGET = 0.005  # plans within this share of the base's KV bytes have the same budget
BUDGETS: dict[FrontierBudget, str] = {
    "kv_bytes_ratio": "KV bytes",
    "prefill_seconds_ratio": "predicted prefill time",
    "decode_seconds_ratio": "predicted time per token",
}


class PlanRow(NamedTuple):
    """One plan of a survey. ``number`` identifies it in the charts."""

    number: int
    name: str
    entry: SurveyPlan
    kv_ratio: float | None
    share: float | None  # of the base, of the quantity that the frontier limits
    measured: dict[str, Measurement]
    same_as: str | None  # name of an earlier plan that converts in the same way
    strip: list[LayerRun]

    @property
    def kind(self) -> str:
        """The class of its mark in the charts."""
        return "candidate" if self.entry.budget is None else "frontier"

    @property
    def times(self) -> list[tuple[str, str]]:
        """(share of the base's time, time) for prefill and per new token, both predicted."""
        time, ratio = planned_time(self.entry.plan), planned_ratio(self.entry.plan)
        if time is None or ratio is None:
            return [(MISSING, "")] * 2
        return [
            (percent(ratio.prefill), quantity(time.prefill_seconds * 1e3, "ms")),
            (percent(ratio.decode), quantity(time.decode_seconds_per_token * 1e3, "ms")),
        ]

    @property
    def sentence(self) -> str:
        return plan_sentence(self.entry.plan)

    def value(self, metric: str) -> float | None:
        measurement = self.measured.get(metric)
        return measurement.value if measurement else None


def survey_looks(bundle: SurveyBundle) -> dict[str, Look]:
    """The looks of all strategies in the survey, with those chosen from the second text."""
    second = bundle.stability.plans.values() if bundle.stability else ()
    return looks(*(entry.plan for entry in bundle.plans.values()), *second)


def plan_rows(bundle: SurveyBundle) -> list[PlanRow]:
    """All plans in the survey's order; the points of the frontier come last."""
    look = survey_looks(bundle)
    seen: dict[tuple[object, ...], str] = {}
    rows = []
    for index, (name, entry) in enumerate(bundle.plans.items(), 1):
        first = seen.setdefault(_conversion(entry), name)
        measurements = bundle.comparison.plans[name]
        rows.append(
            PlanRow(
                number=index,
                name=name,
                entry=entry,
                kv_ratio=bundle.kv_ratio(name),
                share=bundle.share(name),
                measured={m.metric: m for m in measurements if m.arm == "candidate"},
                same_as=first if first != name else None,
                strip=plan_strip(entry.plan, look),
            )
        )
    return rows


def metric_rows(bundle: SurveyBundle) -> list[Row]:
    """All metrics that at least one plan was measured on, in the recipe's order."""
    measurements = [m for group in bundle.comparison.plans.values() for m in group]
    of_plans = {m.metric for m in measurements if m.arm == "candidate"}
    rows = rows_of(measurements, bundle.comparison.presentation)
    return [row for row in rows if row.metric in of_plans]


def _conversion(entry: SurveyPlan) -> tuple[object, ...]:
    """The conversion of each item of a plan, without reasons and predictions."""
    return tuple(
        (item.start, item.stop, item.strategy, options(item.params))
        for item in entry.plan.items
        if item.strategy != "keep"
    )


class StabilityRow(NamedTuple):
    """One plan of the survey, chosen from both texts.

    ``cells``: (measured on, chosen from, both are of the same domain, measurements by family).
    """

    name: str
    overlap: PlanOverlap
    strips: list[tuple[str, list[LayerRun]]]  # (text, the plan chosen from it)
    cells: list[tuple[str, str, bool, dict[str, Measurement]]]


def stability_rows(bundle: SurveyBundle) -> list[StabilityRow]:
    """One row per plan; empty if the recipe does not ask for stability."""
    stability = bundle.stability
    if stability is None:
        return []
    look = survey_looks(bundle)
    rows = []
    for name, second in stability.plans.items():
        first = bundle.plans[name].plan
        cells = [
            (
                held_out,
                text,
                domain == choice,
                {family: stability.damage(name, text, family, held_out) for family in FAMILIES},
            )
            for domain, held_out in enumerate(stability.held_out)
            for choice, text in enumerate(stability.texts)
        ]
        both = zip(stability.texts, (first, second), strict=True)
        strips = [(text, plan_strip(plan, look)) for text, plan in both]
        rows.append(StabilityRow(name, overlap(first, second), strips, cells))
    return rows


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
        figures = [f"{p.name} {interval_text(p.measured[metric.metric])}" for p in ranked]
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
    selector, name = points[0].entry.plan.selector, metric.metric
    figures = (f"{interval_text(p.measured[name])} at {percent(p.share)}" for p in points)
    return f"{name} of {selector}: {', '.join(figures)} of the {BUDGETS[budget]}."


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
