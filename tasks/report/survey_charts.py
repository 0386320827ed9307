"""Charts of a survey: plans ranked by a metric, and a metric against the budget."""

import math
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
    scale, reference, limit = _axis(ranked, metric, 10, WIDTH - 10)
    rows: list[DotRow] = []
    for plan in ranked:
        measured, top = plan.measured[metric.metric], 4.0 + ROW * len(rows)
        arrow = ("←" if measured.higher_is_better else "→") * _beyond(measured, limit)
        drawn = dot(measured, scale, top + 24, plan.kind, plan.name, arrow)
        figures = quantity(measured.value, measured.unit)
        rows.append(DotRow(f"{plan.number} {plan.name}", figures, top, [drawn], None))
    return DotPanel(
        title=metric.metric,
        help=metric.note,
        rows=rows,
        ticks=scale.ticks(),
        reference=reference,
        height=4 + ROW * len(rows) + 22,
        description="; ".join(row.dots[0].title for row in rows),
    )


def budget_panel(plans: list[PlanRow], metric: Row, budget: FrontierBudget) -> LinePanel | None:
    """A metric against the plan's share of ``budget``; None if no plan has both."""
    ranked = [p for p in best_first(plans, metric) if p.share is not None]
    if not ranked:
        return None
    y, reference, limit = _axis(ranked, metric, BOTTOM, TOP)
    x = Scale(0.0, max(1.05, *(p.share or 0.0 for p in ranked)), LEFT, RIGHT)
    ranked.sort(key=lambda p: p.share or 0.0)
    series = []
    for kind, label in (("frontier", "frontier"), ("candidate", "other plans")):
        points, whiskers, tags = [], [], []
        for plan in (p for p in ranked if p.kind == kind):
            measured, at = plan.measured[metric.metric], x(plan.share or 0.0)
            text = f"{plan.number} {plan.name}, {percent(plan.share)}: {interval_text(measured)}"
            points.append((at, y(measured.value or 0.0), text))
            if measured.low is not None and measured.high is not None:
                whiskers.append((at, y(measured.low), y(measured.high)))
            arrow = " ↓" if measured.higher_is_better else " ↑"
            tags.append(f"{plan.number}{arrow * _beyond(measured, limit)}")
        joined = kind == "frontier"
        if points:
            line = Series(kind, points, True, label, joined=joined, whiskers=whiskers, tags=tags)
            series.append(line)
    return LinePanel(
        title=metric.metric,
        help=f"{metric.known.label}; plans by their numbers in the table, bars are 95 % intervals",
        series=series,
        x_ticks=[(x(v), percent(v)) for v in (0.0, 0.25, 0.5, 0.75, 1.0)],
        y_ticks=y.ticks(5),
        description="; ".join(
            f"{p.name} at {percent(p.share)}: {interval_text(p.measured[metric.metric])}"
            for p in ranked
        ),
        x_name=f"{BUDGETS[budget]} over the base's",
        reference=reference,
    )


def _axis(
    ranked: list[PlanRow], metric: Row, start: float, stop: float
) -> tuple[Scale, float | None, float | None]:
    """The scale of a metric; the place of the base, or of an unchanged model; the axis' limit."""
    base, limit = metric.value("base"), _limit(ranked, metric)
    reference = metric.known.reference if base is None else base
    measured = [plan.measured[metric.metric] for plan in ranked]
    inside = [v for m in measured if not _beyond(m, limit) for v in (m.value, m.low, m.high)]
    shown = [v for v in (*inside, reference, limit) if v is not None]
    scale = scale_for(shown, start, stop, log=_logarithmic(metric))
    return scale, scale.maybe(reference), limit


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


def _logarithmic(metric: Row) -> bool:
    return metric.known.log or metric.family in LOGARITHMIC
