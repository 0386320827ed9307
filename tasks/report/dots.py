"""Dot charts with confidence intervals: one family of metrics on one axis.

These modules compute the geometry; charts.j2 draws it as inline SVG. Compared with matplotlib, text
takes the page's colours in both themes, a chart is a few kilobytes, every mark has a tooltip, and
there is no slow import.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from layerwright.tasks.contracts.evaluation import ARMS
from layerwright.tasks.contracts.gate import GateDecision
from layerwright.tasks.report.formats import number
from layerwright.tasks.report.measurements import Row, limit_of
from layerwright.tasks.report.scales import WIDTH, scale_for


@dataclass(frozen=True)
class Dot:
    """One value with its interval, in drawing units.

    ``beyond``: an arrow, if the value is outside the axis.
    """

    arm: str
    x: float
    low: float | None
    high: float | None
    y: float
    title: str
    beyond: str = ""


@dataclass(frozen=True)
class DotRow:
    """One metric: a label, its figures as text, and one dot per arm or plan."""

    label: str
    figures: str
    top: float
    dots: list[Dot]
    limit: float | None


@dataclass(frozen=True)
class DotPanel:
    """The chart of one family of metrics, with one row per metric."""

    title: str
    help: str
    rows: list[DotRow]
    ticks: list[tuple[float, str]]
    reference: float | None
    height: float
    description: str


def dot_panel(family: Sequence[Row], all_rows: list[Row], decision: GateDecision) -> DotPanel:
    """The chart of one family of metrics, with intervals and the gate's limits."""
    known = family[0].known
    limits = {row.metric: limit_of(row, all_rows, decision) for row in family}
    figures = [limit for limit in limits.values() if limit is not None]
    for row in family:
        for m in row.arms.values():
            figures += [v for v in (m.value, m.low, m.high) if v is not None]
    if known.reference is not None:
        figures.append(known.reference)
    scale = scale_for(figures, 10, WIDTH - 10, log=known.log)
    drawn, top = [], 4.0
    for row in family:
        shown = [arm for arm in ARMS if arm in row.arms]
        dots = []
        for index, arm in enumerate(shown):
            m = row.arms[arm]
            if m.value is None:
                continue
            dots.append(
                Dot(
                    arm=arm,
                    x=scale(m.value),
                    low=None if m.low is None else scale(m.low),
                    high=None if m.high is None else scale(m.high),
                    y=top + 26 + 11 * index,
                    title=f"{arm}: {interval_text(m.value, m.low, m.high)}",
                )
            )
        limit = limits[row.metric]
        drawn.append(
            DotRow(
                label=row.subject or row.metric,
                figures=" → ".join(
                    number(row.arms[a].value) for a in shown if a in ("base", "candidate")
                ),
                top=top,
                dots=dots,
                limit=None if limit is None else scale(limit),
            )
        )
        top += 30 + 11 * len(shown)
    description = "; ".join(
        f"{row.subject or row.metric}: "
        + ", ".join(f"{arm} {interval_text(m.value, m.low, m.high)}" for arm, m in row.arms.items())
        for row in family
    )
    reference = None if known.reference is None else scale(known.reference)
    return DotPanel(known.label, known.help, drawn, scale.ticks(), reference, top + 22, description)


def interval_text(value: float | None, low: float | None, high: float | None) -> str:
    """``30.16 (29.8 to 30.5)``."""
    if low is None or high is None:
        return number(value)
    return f"{number(value)} ({number(low)} to {number(high)})"
