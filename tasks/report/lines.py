"""Lines: a metric over context lengths, a loss over training, a figure over the layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from layerwright.tasks.contracts.evaluation import ARMS
from layerwright.tasks.report.formats import interval, length, number, quantity
from layerwright.tasks.report.measurements import Row
from layerwright.tasks.report.scales import WIDTH, Scale, scale_for

MAX_POINTS = 400  # of a training curve; more would not be seen
LEFT, RIGHT, TOP, BOTTOM = 56.0, WIDTH - 16, 14.0, 150.0


@dataclass(frozen=True)
class Series:
    """One line. ``kind`` is its CSS class, and its mark where it is an arm; else ``shape`` is."""

    kind: str
    points: list[tuple[float, float, str]]  # x, y, tooltip
    marked: bool
    label: str = ""
    shape: int | None = None
    joined: bool = True  # by a line; else marks alone
    breaks: frozenset[int] = frozenset()  # points before which the line is interrupted
    whiskers: list[tuple[float, float, float]] = field(default_factory=list)  # x, low, high
    tags: list[str] = field(default_factory=list)  # a word beside each point
    ringed: frozenset[int] = frozenset()  # points that stand out

    @property
    def path(self) -> str:
        return " ".join(
            f"{'M' if i == 0 or i in self.breaks else 'L'}{x:g} {y:g}"
            for i, (x, y, _) in enumerate(self.points)
        )


@dataclass(frozen=True)
class LinePanel:
    """Lines over a context length, training, layers or a budget."""

    title: str
    help: str
    series: list[Series]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    description: str
    x_name: str
    height: float = 190.0
    left: float = 48.0
    bands: list[tuple[float, float, str]] = field(default_factory=list)  # from, to, name
    reference: float | None = None  # where nothing has changed


def length_panel(curve: Sequence[Row]) -> LinePanel:
    """One family at one batch size over context lengths (log2 axis), all arms, from zero.

    Whiskers are the extremes of repeats, or an interval, where the metric gives them.
    """
    known, unit = curve[0].known, curve[0].any.unit
    places = sorted({row.tokens for row in curve if row.tokens is not None})
    values = [m.value for row in curve for m in row.arms.values() if m.value is not None]
    spread = [v for row in curve for m in row.arms.values() for v in (m.low, m.high)
              if v is not None]  # fmt: skip
    divisor, unit_name = _divisor(values, unit)
    y = scale_for([v / divisor for v in values + spread], BOTTOM, TOP, zero=True, pad=0.12)
    x = scale_for([math.log2(p) for p in places], LEFT, RIGHT, pad=0.1)
    series = []
    for arm in ARMS:
        points, whiskers = [], []
        for row in sorted(curve, key=lambda r: r.tokens or 0):
            m = row.arms.get(arm)
            if not row.tokens or m is None or m.value is None:
                continue
            at, title = x(math.log2(row.tokens)), f"{arm}, {length(row.tokens)} tokens"
            told = quantity(m.value, unit)
            if m.low is not None and m.high is not None:
                whiskers.append((at, y(m.low / divisor), y(m.high / divisor)))
                told += f" ({interval(m.low, m.high, unit)})"
            points.append((at, y(m.value / divisor), f"{title}: {told}"))
        if points:
            series.append(Series(arm, points, marked=True, whiskers=whiskers))
    description = "; ".join(
        f"at {row.tokens} tokens "
        + ", ".join(f"{arm} {quantity(row.value(arm), unit)}" for arm in row.arms)
        for row in curve
    )
    return LinePanel(
        title=f"{known.label}, {unit_name}" + _load(curve[0]),
        help=known.help,
        series=series,
        x_ticks=[(x(math.log2(p)), length(p)) for p in places],
        y_ticks=y.ticks(5),
        description=description,
        x_name="context, tokens",
    )


def _load(row: Row) -> str:
    """What a curve's workload has beside the length."""
    load = row.workload
    new = f", {load.new_tokens} new tokens" if load and load.new_tokens else ""
    return new + (f", {row.batch} rows" if row.batch > 1 else "")


def _divisor(values: list[float], unit: str) -> tuple[float, str]:
    """The binary unit that suits the largest of ``values`` in bytes."""
    if unit not in ("bytes", "B"):
        return 1.0, unit
    size, name = 1.0, "bytes"
    for step, step_name in ((2**10, "KiB"), (2**20, "MiB"), (2**30, "GiB")):
        if values and max(values) >= step:
            size, name = float(step), step_name
    return size, name


@dataclass(frozen=True)
class CurvePoint:
    """A figure of a training after ``tokens`` tokens; ``kept``: the state that was handed on."""

    tokens: int
    step: int
    stage: int
    value: float
    kept: bool = False


def curve_panel(
    title: str, help: str, points: Sequence[CurvePoint], unit: str, ends: Sequence[int]
) -> LinePanel:
    """A training or validation curve over tokens; the axis of figures does not begin at zero.

    Args:
        points: at least one, in order; the line is interrupted between stages.
        ends: tokens at the end of each stage: bands, where there are several stages.
    """
    stride = math.ceil(len(points) / MAX_POINTS)
    last = len(points) - 1
    shown = [p for i, p in enumerate(points) if i % stride == 0 or i == last or p.kept]
    x = scale_for([0, *(p.tokens for p in shown), *ends], LEFT, RIGHT, pad=0.0)
    y = scale_for([p.value for p in shown], BOTTOM, TOP)
    drawn = [
        (
            x(p.tokens),
            y(p.value),
            f"step {p.step}, {p.tokens:,} tokens: {quantity(p.value, unit)}"
            + ", the state that was kept" * p.kept,
        )
        for p in shown
    ]
    first, final = quantity(points[0].value, unit), quantity(points[-1].value, unit)
    starts = (0, *ends[:-1])
    return LinePanel(
        title=title,
        help=f"{first} → {final}; {help}",
        series=[
            Series(
                "candidate",
                drawn,
                marked=len(drawn) <= 30,
                breaks=frozenset(i for i, (a, b) in enumerate(pairwise(shown), 1)
                                 if a.stage != b.stage),
                ringed=frozenset(i for i, p in enumerate(shown) if p.kept),
            )
        ],
        x_ticks=x.ticks(4),
        y_ticks=y.ticks(5),
        description=f"from {first} at {points[0].tokens:,} tokens to {final} "
        f"at {points[-1].tokens:,} tokens",
        x_name="tokens",
        bands=[
            (x(start), x(stop), f"stage {i}")
            for i, (start, stop) in enumerate(zip(starts, ends, strict=True), 1)
        ]
        * (len(ends) > 1),
    )  # fmt: skip


@dataclass(frozen=True)
class LayerLine:
    """A figure of every layer, in the colour class ``colour``; None where it was not measured."""

    label: str
    colour: str
    values: Sequence[float | None]


def layer_panel(
    title: str, help: str, lines: Sequence[LayerLine], *, floor: float | None = None
) -> LinePanel:
    """Lines over the layers, each with a mark and a dash pattern of its own.

    Args:
        floor: values below it are drawn there; their tooltips say what they are.
    """
    known = [max(v, v if floor is None else floor) for one in lines for v in one.values
             if v is not None]  # fmt: skip
    layers = max(len(one.values) for one in lines)
    x = Scale(-0.5, layers - 0.5, LEFT, RIGHT)
    y = scale_for(known, BOTTOM, TOP, bend=True, pad=0.06)
    every = max(1, math.ceil(layers / 40)) * 5
    return LinePanel(
        title=title,
        help=help,
        series=[_layer_series(one, shape, x, y, len(lines)) for shape, one in enumerate(lines)],
        x_ticks=[(x(i), str(i)) for i in range(0, layers, every)],
        y_ticks=y.ticks(5),
        description="; ".join(_extent(one) for one in lines),
        x_name="layer",
        reference=y(0.0) if known and min(known) < 0 < max(known) else None,
    )


def _layer_series(one: LayerLine, shape: int, x: Scale, y: Scale, lines: int) -> Series:
    points, breaks = [], set()
    for layer, value in enumerate(one.values):
        if value is None:
            breaks.add(len(points))
            continue
        points.append((x(layer), y(value), f"{one.label}, layer {layer}: {number(value)}"))
    marked = lines * len(points) <= 400
    return Series(one.colour, points, marked, one.label, shape, breaks=frozenset(breaks))


def _extent(one: LayerLine) -> str:
    known = [(value, layer) for layer, value in enumerate(one.values) if value is not None]
    if not known:
        return f"{one.label}: not measured"
    (low, lowest), (high, highest) = min(known), max(known)
    return f"{one.label}: from {number(low)} at layer {lowest} to {number(high)} at layer {highest}"
