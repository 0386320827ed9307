"""Charts of a survey: plans ranked by a metric, and a metric against the budget."""

import math
from collections.abc import Sequence
from statistics import median

from layerwright.tasks.contracts.evaluation import Measurement
from layerwright.tasks.contracts.plan import FrontierBudget
from layerwright.tasks.report.dots import DotPanel, DotRow, dot, interval_text
from layerwright.tasks.report.formats import percent, quantity
from layerwright.tasks.report.lines import BOTTOM, LEFT, RIGHT, TOP, LinePanel, Series
from layerwright.tasks.report.measurements import Row
from layerwright.tasks.report.scales import WIDTH, Scale, scale_for
from layerwright.tasks.report.survey_plans import BUDGETS, PlanRow, best_first

ROW = 34.0
LOGARITHMIC = ("perplexity", "perplexity_ratio")  # of broken models they reach millions


def plan_dots(plans: list[PlanRow], metric: Row) -> DotPanel:
    """One metric of all plans with its interval, best plan first, and the base as reference."""
    ranked = best_first(plans, metric)
    reference, limit = _reference(metric), _limit(ranked, metric)
    scale = scale_for(
        _figures(ranked, metric, reference, limit), 10, WIDTH - 10, log=_logarithmic(metric)
    )
    rows, descriptions = [], []
    for index, plan in enumerate(ranked):
        measured, top = plan.measured[metric.metric], 4.0 + ROW * index
        arrow = ("←" if measured.higher_is_better else "→") * _beyond(measured, limit)
        drawn = dot(measured, scale, top + 24, _kind(plan), plan.name, arrow)
        label = f"{plan.number} {plan.name}"
        rows.append(DotRow(label, quantity(measured.value, measured.unit), top, [drawn], None))
        descriptions.append(drawn.title)
    return DotPanel(
        title=metric.metric,
        help=metric.note,
        rows=rows,
        ticks=scale.ticks(),
        reference=scale.maybe(reference),
        height=4 + ROW * len(rows) + 22,
        description="; ".join(descriptions),
    )


def budget_panel(plans: list[PlanRow], metric: Row, budget: FrontierBudget) -> LinePanel | None:
    """A metric against the plan's share of ``budget``; None if no plan has both."""
    ranked = [p for p in best_first(plans, metric) if p.share is not None]
    if not ranked:
        return None
    reference, limit = _reference(metric), _limit(ranked, metric)
    shown = _figures(ranked, metric, reference, limit)
    x = Scale(0.0, max(1.05, *(p.share or 0.0 for p in ranked)), LEFT, RIGHT)
    y = scale_for(shown, BOTTOM, TOP, log=_logarithmic(metric))
    ranked.sort(key=lambda p: p.share or 0.0)
    series = []
    for kind, label in (("frontier", "frontier"), ("candidate", "other plans")):
        if of_kind := [p for p in ranked if _kind(p) == kind]:
            series.append(_series(kind, label, of_kind, metric, (x, y), limit))
    return LinePanel(
        title=metric.metric,
        help=f"{metric.known.label}; plans by their numbers in the table, bars are 95 % intervals",
        series=series,
        x_ticks=[(x(v), percent(v)) for v in (0.0, 0.25, 0.5, 0.75, 1.0)],
        y_ticks=y.ticks(5),
        description="; ".join(
            f"{p.name} at {percent(p.share)}: {_text(p.measured[metric.metric])}" for p in ranked
        ),
        x_name=f"{BUDGETS[budget]} over the base's",
        reference=y.maybe(reference),
    )


def _series(
    kind: str,
    label: str,
    plans: Sequence[PlanRow],
    metric: Row,
    scales: tuple[Scale, Scale],
    limit: float | None,
) -> Series:
    points, whiskers, tags = [], [], []
    x, y = scales
    for plan in plans:
        measured, at = plan.measured[metric.metric], x(plan.share or 0.0)
        text = f"{plan.number} {plan.name}, {percent(plan.share)}: {_text(measured)}"
        points.append((at, y(measured.value or 0.0), text))
        if measured.low is not None and measured.high is not None:
            whiskers.append((at, y(measured.low), y(measured.high)))
        arrow = " ↓" if measured.higher_is_better else " ↑"
        tags.append(f"{plan.number}{arrow * _beyond(measured, limit)}")
    joined = kind == "frontier"
    return Series(kind, points, True, label, joined=joined, whiskers=whiskers, tags=tags)


def _limit(ranked: list[PlanRow], metric: Row) -> float | None:
    """The end of the axis, if a broken plan would otherwise squeeze all others together.

    It is four times as far from the best plan as the median plan (in logarithms on a logarithmic
    axis); None if no plan is twice as far as that.
    """

    def position(value: float) -> float:
        return math.log(value) if logarithmic else value

    values = [plan.value(metric.metric) or 0.0 for plan in ranked]
    logarithmic = _logarithmic(metric) and min(values, default=0.0) > 0
    distances = [abs(position(value) - position(values[0])) for value in values]
    if not distances or not 0 < 8 * median(distances) < max(distances):
        return None
    reach = 4 * median(distances) * (-1 if metric.any.higher_is_better else 1)
    end = position(values[0]) + reach
    return math.exp(end) if logarithmic else end


def _beyond(measured: Measurement, limit: float | None) -> bool:
    """Whether a value lies outside the axis that ends at ``limit``."""
    if limit is None or measured.value is None:
        return False
    return measured.value < limit if measured.higher_is_better else measured.value > limit


def _kind(plan: PlanRow) -> str:
    return "candidate" if plan.entry.budget is None else "frontier"


def _text(measured: Measurement) -> str:
    return interval_text(measured.value, measured.low, measured.high)


def _logarithmic(metric: Row) -> bool:
    return metric.known.log or metric.family in LOGARITHMIC


def _reference(metric: Row) -> float | None:
    """The base's value, or the value of an unchanged model."""
    base = metric.value("base")
    return base if base is not None else metric.known.reference


def _figures(
    plans: list[PlanRow], metric: Row, reference: float | None, limit: float | None
) -> list[float]:
    """All values that the axis must include."""
    measured = [plan.measured[metric.metric] for plan in plans]
    inside = [m for m in measured if not _beyond(m, limit)]
    values = [v for m in inside for v in (m.value, m.low, m.high)]
    return [v for v in (*values, reference, limit) if v is not None]
