"""Dot charts with confidence intervals: one family of metrics on one axis.

Modules of charts compute the geometry; charts.j2 draws it as inline SVG in the page's colours.
"""

from collections.abc import Sequence
from typing import NamedTuple

from layerwright.tasks.contracts.evaluation import ARMS, Measurement
from layerwright.tasks.contracts.gate import GateDecision
from layerwright.tasks.report.formats import number
from layerwright.tasks.report.measurements import Row, families, limit_of
from layerwright.tasks.report.scales import WIDTH, Scale, scale_for


class Dot(NamedTuple):
    """One value with its interval, in drawing units."""

    arm: str
    x: float
    low: float | None
    high: float | None
    y: float
    title: str
    beyond: str = ""  # an arrow, if the value is outside the axis


class DotRow(NamedTuple):
    """One metric: a label, its figures as text, and one dot per arm or plan."""

    label: str
    figures: str
    top: float
    dots: list[Dot]
    limit: float | None


class DotPanel(NamedTuple):
    """The chart of one family of metrics, with one row per metric."""

    title: str
    help: str
    rows: list[DotRow]
    ticks: list[tuple[float, str]]
    reference: float | None
    height: float
    description: str


def dot_panels(some: list[Row], all_rows: list[Row], decision: GateDecision) -> list[DotPanel]:
    """One chart for each family of ``some`` with a value."""
    known = [
        family
        for family in families(some).values()
        if any(m.value is not None for row in family for m in row.arms.values())
    ]
    return [dot_panel(family, all_rows, decision) for family in known]


def dot_panel(family: Sequence[Row], all_rows: list[Row], decision: GateDecision) -> DotPanel:
    """The chart of one family of metrics, with intervals and the gate's limits."""
    known = family[0].known
    limits = {row.metric: limit_of(row, all_rows, decision) for row in family}
    figures = [known.reference, *limits.values()]
    figures += [v for row in family for m in row.arms.values() for v in (m.value, m.low, m.high)]
    scale = scale_for([v for v in figures if v is not None], 10, WIDTH - 10, log=known.log)
    drawn, top = [], 4.0
    for row in family:
        shown = [arm for arm in ARMS if arm in row.arms]
        dots = [
            dot(row.arms[arm], scale, top + 26 + 11 * index, arm, arm)
            for index, arm in enumerate(shown)
            if row.arms[arm].value is not None
        ]
        both = (number(row.arms[a].value) for a in shown if a in ("base", "candidate"))
        limit = scale.maybe(limits[row.metric])
        drawn.append(DotRow(row.subject or row.metric, " → ".join(both), top, dots, limit))
        top += 30 + 11 * len(shown)
    description = "; ".join(
        f"{row.subject or row.metric}: "
        + ", ".join(f"{arm} {interval_text(m)}" for arm, m in row.arms.items())
        for row in family
    )
    reference = scale.maybe(known.reference)
    return DotPanel(known.label, known.help, drawn, scale.ticks(), reference, top + 22, description)


def dot(m: Measurement, scale: Scale, y: float, kind: str, name: str, beyond: str = "") -> Dot:
    """The dot of a measurement that has a value."""
    x, low, high = scale(m.value or 0.0), scale.maybe(m.low), scale.maybe(m.high)
    return Dot(kind, x, low, high, y, f"{name}: {interval_text(m)}", beyond)


def interval_text(m: Measurement) -> str:
    """``30.16 (29.8 to 30.5)``."""
    known = m.low is not None and m.high is not None
    return number(m.value) + f" ({number(m.low)} to {number(m.high)})" * known
