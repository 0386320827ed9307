"""Plots of a survey: plans side by side, best first, and a metric against the budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from layerwright.tasks.contracts.evaluation import Measurement
from layerwright.tasks.contracts.plan import FrontierBudget
from layerwright.tasks.report.dots import Dot, DotPanel, DotRow, interval_text
from layerwright.tasks.report.formats import percent, quantity
from layerwright.tasks.report.lines import BOTTOM, LEFT, RIGHT, TOP, LinePanel, Series
from layerwright.tasks.report.measurements import Row
from layerwright.tasks.report.scales import WIDTH, Scale, scale_for
from layerwright.tasks.report.survey_plans import PlanRow
from layerwright.tasks.report.survey_verdict import BUDGETS, best_first

ROW = 34.0
LOGARITHMIC = ("perplexity", "perplexity_ratio")  # plans that ruin a model reach millions


def plan_dots(plans: list[PlanRow], metric: Row) -> DotPanel:
    """One metric of every plan with its interval, best first; the base where it has a figure."""
    ranked = best_first(plans, metric)
    reference = _reference(metric)
    limit = _limit(ranked, metric)
    shown = _figures(ranked, metric, reference, limit)
    scale = scale_for(shown, 10, WIDTH - 10, log=_logarithmic(metric))
    rows, told = [], []
    for place, plan in enumerate(ranked):
        found, top = plan.measured[metric.metric], 4.0 + ROW * place
        text = interval_text(found.value, found.low, found.high)
        assert found.value is not None  # best_first leaves the others out
        arrow = "←" if found.higher_is_better else "→"
        dot = Dot(
            arm=_kind(plan),
            x=scale(found.value),
            low=None if found.low is None else scale(found.low),
            high=None if found.high is None else scale(found.high),
            y=top + 24,
            title=f"{plan.name}: {text}",
            beyond=arrow * _beyond(found, limit),
        )
        label = f"{plan.number} {plan.name}"
        rows.append(DotRow(label, quantity(found.value, found.unit), top, [dot], None))
        told.append(f"{plan.name}: {text}")
    return DotPanel(
        title=metric.metric,
        help=metric.note,
        rows=rows,
        ticks=scale.ticks(),
        reference=None if reference is None else scale(reference),
        height=4 + ROW * len(rows) + 22,
        description="; ".join(told),
    )


def budget_panel(plans: list[PlanRow], metric: Row, budget: FrontierBudget) -> LinePanel | None:
    """A metric against what a plan takes of ``budget``; None where no plan has both."""
    ranked = [p for p in best_first(plans, metric) if p.share is not None]
    if not ranked:
        return None
    reference = _reference(metric)
    limit = _limit(ranked, metric)
    shown = _figures(ranked, metric, reference, limit)
    x = Scale(0.0, max(1.05, *(p.share or 0.0 for p in ranked)), LEFT, RIGHT)
    y = scale_for(shown, BOTTOM, TOP, log=_logarithmic(metric))
    ranked.sort(key=lambda p: p.share or 0.0)
    series = []
    for kind, label in (("frontier", "frontier"), ("candidate", "other plans")):
        some = [p for p in ranked if _kind(p) == kind]
        if some:
            series.append(_series(kind, label, some, metric, (x, y), limit))
    return LinePanel(
        title=metric.metric,
        help=f"{metric.known.label}; numbers are those of the plans' table, bars 95 % intervals",
        series=series,
        x_ticks=[(x(v), percent(v)) for v in (0.0, 0.25, 0.5, 0.75, 1.0)],
        y_ticks=y.ticks(5),
        description="; ".join(
            f"{p.name} at {percent(p.share)}: {_text(p.measured[metric.metric])}" for p in ranked
        ),
        x_name=f"{BUDGETS[budget]}, share of the base's",
        reference=None if reference is None else y(reference),
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
        found, at = plan.measured[metric.metric], x(plan.share or 0.0)
        text = f"{plan.number} {plan.name}, {percent(plan.share)}: {_text(found)}"
        points.append((at, y(found.value or 0.0), text))
        if found.low is not None and found.high is not None:
            whiskers.append((at, y(found.low), y(found.high)))
        arrow = " ↓" if found.higher_is_better else " ↑"
        tags.append(f"{plan.number}{arrow * _beyond(found, limit)}")
    return Series(
        kind,
        points,
        marked=True,
        label=label,
        joined=kind == "frontier",
        whiskers=whiskers,
        tags=tags,
    )


def _limit(ranked: list[PlanRow], metric: Row) -> float | None:
    """The figure that the axis ends at, where a ruined plan would leave no room for the others.

    Four times as far from the best as the median plan, by logarithm where the axis has one; None
    where no plan is twice as far as that.
    """

    def place(value: float) -> float:
        return math.log(value) if logarithmic else value

    values = [plan.value(metric.metric) or 0.0 for plan in ranked]
    logarithmic = _logarithmic(metric) and min(values, default=0.0) > 0
    far = [abs(place(value) - place(values[0])) for value in values]
    if not far or not 0 < 8 * median(far) < max(far):
        return None
    reach = 4 * median(far) * (-1 if metric.any.higher_is_better else 1)
    end = place(values[0]) + reach
    return math.exp(end) if logarithmic else end


def _beyond(found: Measurement, limit: float | None) -> bool:
    if limit is None or found.value is None:
        return False
    return found.value < limit if found.higher_is_better else found.value > limit


def _kind(plan: PlanRow) -> str:
    return "candidate" if plan.made.budget is None else "frontier"


def _text(found: Measurement) -> str:
    return interval_text(found.value, found.low, found.high)


def _logarithmic(metric: Row) -> bool:
    return metric.known.log or metric.family in LOGARITHMIC


def _reference(metric: Row) -> float | None:
    """The base's own figure, or where nothing has changed."""
    base = metric.value("base")
    return base if base is not None else metric.known.reference


def _figures(
    plans: list[PlanRow], metric: Row, reference: float | None, limit: float | None
) -> list[float]:
    """All that the axis must reach."""
    found = [plan.measured[metric.metric] for plan in plans]
    inside = [m for m in found if not _beyond(m, limit)]
    values = [v for m in inside for v in (m.value, m.low, m.high) if v is not None]
    ends = [v for v in (reference, limit) if v is not None]
    return values + ends
