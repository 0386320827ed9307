"""Lines: a metric over context lengths, a loss over training steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tasks.report.formats import length, quantity
from tasks.report.measurements import ARMS, Row
from tasks.report.scales import WIDTH, scale_for

MAX_POINTS = 400  # of a training curve; more would not be seen


@dataclass(frozen=True)
class Series:
    """One line; ``kind`` is its CSS class and mark: base, candidate or control."""

    kind: str
    points: list[tuple[float, float, str]]  # x, y, tooltip
    marked: bool

    @property
    def path(self) -> str:
        return " ".join(f"{x:g},{y:g}" for x, y, _ in self.points)


@dataclass(frozen=True)
class LinePanel:
    """Lines over a context length or over training steps."""

    title: str
    help: str
    series: list[Series]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    description: str
    x_name: str
    height: float = 190.0
    left: float = 48.0


def length_panel(family: Sequence[Row]) -> LinePanel:
    """One family over context lengths (log2 axis), all arms, from zero."""
    known, unit = family[0].known, family[0].any.unit
    places = sorted({row.tokens for row in family if row.tokens is not None})
    values = [m.value for row in family for m in row.arms.values() if m.value is not None]
    divisor, unit_name = _divisor(values, unit)
    y = scale_for([v / divisor for v in values], 150, 14, zero=True, pad=0.12)
    logs = [math.log2(p) for p in places]
    x = scale_for(logs, 56, WIDTH - 16, pad=0.1)
    series = []
    for arm in ARMS:
        points = [
            (
                x(math.log2(row.tokens)),
                y(v / divisor),
                f"{arm}, {length(row.tokens)} tokens: {quantity(v, unit)}",
            )
            for row in sorted(family, key=lambda r: r.tokens or 0)
            if row.tokens and (v := row.value(arm)) is not None
        ]
        if points:
            series.append(Series(arm, points, marked=True))
    description = "; ".join(
        f"at {row.tokens} tokens "
        + ", ".join(f"{arm} {quantity(row.value(arm), unit)}" for arm in row.arms)
        for row in family
    )
    return LinePanel(
        title=f"{known.label}, {unit_name}",
        help=known.help,
        series=series,
        x_ticks=[(x(math.log2(p)), length(p)) for p in places],
        y_ticks=y.ticks(5),
        description=description,
        x_name="context, tokens",
    )


def _divisor(values: list[float], unit: str) -> tuple[float, str]:
    """The binary unit that suits the largest of ``values`` in bytes."""
    if unit not in ("bytes", "B"):
        return 1.0, unit
    size, name = 1.0, "bytes"
    for step, step_name in ((2**10, "KiB"), (2**20, "MiB"), (2**30, "GiB")):
        if values and max(values) >= step:
            size, name = float(step), step_name
    return size, name


def curve_panel(
    title: str, steps: Sequence[int], values: Sequence[float], write: Callable[[float], str]
) -> LinePanel:
    """One training curve; the axis does not begin at zero."""
    stride = math.ceil(len(steps) / MAX_POINTS)
    kept = sorted({*range(0, len(steps), stride), len(steps) - 1})
    x = scale_for([steps[i] for i in kept], 56, WIDTH - 16, pad=0.02)
    y = scale_for([values[i] for i in kept], 150, 14)
    points = [(x(steps[i]), y(values[i]), f"step {steps[i]}: {write(values[i])}") for i in kept]
    return LinePanel(
        title=title,
        help=f"{write(values[0])} → {write(values[-1])}",
        series=[Series("candidate", points, marked=len(points) <= 30)],
        x_ticks=x.ticks(5),
        y_ticks=y.ticks(5),
        description=f"from {write(values[0])} at step {steps[0]} to {write(values[-1])} "
        f"at step {steps[-1]}",
        x_name="step",
    )
