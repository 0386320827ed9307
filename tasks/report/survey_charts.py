"""Plots of a survey: plans side by side, best first, and a metric against the budget."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.contracts import Measurement
from tasks.report.dots import Dot, DotPanel, DotRow, interval_text
from tasks.report.formats import percent, quantity
from tasks.report.lines import BOTTOM, LEFT, RIGHT, TOP, LinePanel, Series
from tasks.report.measurements import Row
from tasks.report.scales import WIDTH, Scale, scale_for
from tasks.report.survey_plans import PlanRow
from tasks.report.survey_verdict import best_first

ROW = 34.0
LOGARITHMIC = ("perplexity", "perplexity_ratio")  # plans that ruin a model reach millions


def plan_dots(plans: list[PlanRow], metric: Row) -> DotPanel:
    """One metric of every plan with its interval, best first; the base where it has a figure."""
    ranked = best_first(plans, metric)
    reference = _reference(metric)
    scale = scale_for(
        _figures(ranked, metric, reference), 10, WIDTH - 10, log=_logarithmic(metric), bend=True
    )
    rows, told = [], []
    for place, plan in enumerate(ranked):
        found, top = plan.measured[metric.metric], 4.0 + ROW * place
        text = interval_text(found.value, found.low, found.high)
        assert found.value is not None  # best_first leaves the others out
        dot = Dot(
            arm=_kind(plan),
            x=scale(found.value),
            low=None if found.low is None else scale(found.low),
            high=None if found.high is None else scale(found.high),
            y=top + 24,
            title=f"{plan.name}: {text}",
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


def budget_panel(plans: list[PlanRow], metric: Row) -> LinePanel | None:
    """A metric against the KV bytes over the base's; None where no plan has both."""
    ranked = [p for p in best_first(plans, metric) if p.kv_ratio is not None]
    if not ranked:
        return None
    reference = _reference(metric)
    x = Scale(0.0, max(1.05, *(p.kv_ratio or 0.0 for p in ranked)), LEFT, RIGHT)
    y = scale_for(
        _figures(ranked, metric, reference), BOTTOM, TOP, log=_logarithmic(metric), bend=True
    )
    ranked.sort(key=lambda p: p.kv_ratio or 0.0)
    series = []
    for kind, label in (("frontier", "frontier"), ("candidate", "other plans")):
        some = [p for p in ranked if _kind(p) == kind]
        if some:
            series.append(_series(kind, label, some, metric, x, y))
    return LinePanel(
        title=metric.metric,
        help=f"{metric.known.label}; numbers are those of the plans' table, bars 95 % intervals",
        series=series,
        x_ticks=[(x(v), percent(v)) for v in (0.0, 0.25, 0.5, 0.75, 1.0)],
        y_ticks=y.ticks(5),
        description="; ".join(
            f"{p.name} at {percent(p.kv_ratio)}: {_text(p.measured[metric.metric])}" for p in ranked
        ),
        x_name="KV bytes, share of the base's",
        reference=None if reference is None else y(reference),
    )


def _series(
    kind: str, label: str, plans: Sequence[PlanRow], metric: Row, x: Scale, y: Scale
) -> Series:
    points, whiskers = [], []
    for plan in plans:
        found, at = plan.measured[metric.metric], x(plan.kv_ratio or 0.0)
        text = f"{plan.number} {plan.name}, {plan.ratio}: {_text(found)}"
        points.append((at, y(found.value or 0.0), text))
        if found.low is not None and found.high is not None:
            whiskers.append((at, y(found.low), y(found.high)))
    return Series(
        kind,
        points,
        marked=True,
        label=label,
        joined=kind == "frontier",
        whiskers=whiskers,
        tags=[str(plan.number) for plan in plans],
    )


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


def _figures(plans: list[PlanRow], metric: Row, reference: float | None) -> list[float]:
    found = [plan.measured[metric.metric] for plan in plans]
    values = [v for m in found for v in (m.value, m.low, m.high) if v is not None]
    return values if reference is None else [*values, reference]
