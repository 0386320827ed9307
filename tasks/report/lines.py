"""Line charts: a metric over context length, a loss over training, a figure over layers."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from layerwright.tasks.contracts.evaluation import ARMS
from layerwright.tasks.report.formats import MISSING, interval, length, number, quantity
from layerwright.tasks.report.measurements import Row
from layerwright.tasks.report.scales import WIDTH, Scale, scale_for

MAX_POINTS = 400  # per training curve; readers would not see more
LEFT, RIGHT, TOP, BOTTOM = 56.0, WIDTH - 16, 14.0, 150.0


class Series(NamedTuple):
    """One line of a chart. ``breaks`` and ``ringed`` are indices of points."""

    kind: str  # CSS class; for an arm it also selects the mark, otherwise ``shape`` does
    points: list[tuple[float, float, str]]  # (x, y, tooltip)
    marked: bool
    label: str = ""
    shape: int | None = None
    joined: bool = True
    breaks: frozenset[int] = frozenset()  # the line is interrupted before these points
    whiskers: Sequence[tuple[float, float, float]] = ()  # (x, low, high)
    tags: Sequence[str] = ()  # a text next to each point
    ringed: frozenset[int] = frozenset()

    @property
    def path(self) -> str:
        """The line as an SVG path."""
        return " ".join(
            f"{'M' if i == 0 or i in self.breaks else 'L'}{x:g} {y:g}"
            for i, (x, y, _) in enumerate(self.points)
        )


class LinePanel(NamedTuple):
    """A line chart."""

    title: str
    help: str
    series: list[Series]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    description: str
    x_name: str
    height: float = 190.0
    left: float = 48.0
    bands: Sequence[tuple[float, float, str]] = ()  # (start, stop, name) of stages
    reference: float | None = None  # y of the value of an unchanged model


def length_panel(curve: Sequence[Row]) -> LinePanel:
    """A metric of all arms over context length, on a log2 axis; the y-axis starts at zero.

    Whiskers are the fastest and slowest repeat, or a confidence interval, if the metric gives them.
    """
    known, unit = curve[0].known, curve[0].any.unit
    lengths = sorted({row.tokens for row in curve if row.tokens is not None})
    measured = [m for row in curve for m in row.arms.values()]
    values = [m.value for m in measured if m.value is not None]
    spread = [v for m in measured for v in (m.low, m.high) if v is not None]
    divisor, unit_name = _divisor(values, unit)
    y = scale_for([v / divisor for v in values + spread], BOTTOM, TOP, zero=True, pad=0.12)
    x = scale_for([math.log2(tokens) for tokens in lengths], LEFT, RIGHT, pad=0.1)
    series = []
    for arm in ARMS:
        points, whiskers = [], []
        for row in sorted(curve, key=lambda r: r.tokens or 0):
            m = row.arms.get(arm)
            if not row.tokens or m is None or m.value is None:
                continue
            at, title = x(math.log2(row.tokens)), f"{arm}, {length(row.tokens)} tokens"
            text = quantity(m.value, unit)
            if m.low is not None and m.high is not None:
                whiskers.append((at, y(m.low / divisor), y(m.high / divisor)))
                text += f" ({interval(m.low, m.high, unit)})"
            points.append((at, y(m.value / divisor), f"{title}: {text}"))
        if points:
            series.append(Series(arm, points, marked=True, whiskers=whiskers))
    description = "; ".join(
        f"at {row.tokens} tokens "
        + ", ".join(f"{arm} {quantity(row.value(arm), unit)}" for arm in row.arms)
        for row in curve
    )
    return LinePanel(
        title=f"{known.label}, {unit_name}" + _workload_suffix(curve[0]),
        help=known.help,
        series=series,
        x_ticks=[(x(math.log2(tokens)), length(tokens)) for tokens in lengths],
        y_ticks=y.ticks(5),
        description=description,
        x_name="context, tokens",
    )


def _workload_suffix(row: Row) -> str:
    """The new tokens and batch size of a curve, for its title."""
    load = row.workload
    new = f", {load.new_tokens} new tokens" if load and load.new_tokens else ""
    return new + (f", batch {row.batch}" if row.batch > 1 else "")


def _divisor(values: list[float], unit: str) -> tuple[float, str]:
    """The binary unit for the largest of ``values``, and its size in bytes."""
    if unit not in ("bytes", "B"):
        return 1.0, unit
    size, name = 1.0, "bytes"
    for step, step_name in ((2**10, "KiB"), (2**20, "MiB"), (2**30, "GiB")):
        if values and max(values) >= step:
            size, name = float(step), step_name
    return size, name


class CurvePoint(NamedTuple):
    """A figure after ``tokens`` training tokens. ``kept``: the stage passed on this state."""

    tokens: int
    step: int
    stage: int
    value: float
    kept: bool = False


def curve_panel(
    title: str, help: str, points: Sequence[CurvePoint], unit: str, ends: Sequence[int]
) -> LinePanel:
    """A training or validation curve over tokens. The y-axis does not start at zero.

    Args:
        points: at least one, in order; the line is interrupted between stages.
        ends: tokens at the end of each stage; several stages get background bands.
    """
    stride = math.ceil(len(points) / MAX_POINTS)
    last = len(points) - 1
    shown = [p for i, p in enumerate(points) if i % stride == 0 or i == last or p.kept]
    x = scale_for([0, *(p.tokens for p in shown), *ends], LEFT, RIGHT, pad=0.0)
    y = scale_for([p.value for p in shown], BOTTOM, TOP)
    texts = (f"step {p.step}, {p.tokens:,} tokens: {quantity(p.value, unit)}" for p in shown)
    drawn = [
        (x(p.tokens), y(p.value), text + ", kept state" * p.kept)
        for p, text in zip(shown, texts, strict=True)
    ]
    breaks = [i for i, (a, b) in enumerate(pairwise(shown), 1) if a.stage != b.stage]
    ringed = frozenset(i for i, p in enumerate(shown) if p.kept)
    line = Series("candidate", drawn, len(drawn) <= 30, breaks=frozenset(breaks), ringed=ringed)
    first, final = quantity(points[0].value, unit), quantity(points[-1].value, unit)
    bands = [
        (x(start), x(stop), f"stage {i}") for i, (start, stop) in enumerate(pairwise([0, *ends]), 1)
    ]
    return LinePanel(
        title=title,
        help=f"{first} → {final}; {help}",
        series=[line],
        x_ticks=x.ticks(4),
        y_ticks=y.ticks(5),
        description=f"from {first} at {points[0].tokens:,} tokens to {final} "
        f"at {points[-1].tokens:,} tokens",
        x_name="tokens",
        bands=bands * (len(ends) > 1),
    )


class LayerLine(NamedTuple):
    """A figure per layer, in the colour class ``colour``; None if it was not measured."""

    label: str
    colour: str
    values: Sequence[float | None]


def layer_panel(
    title: str, help: str, lines: Sequence[LayerLine], *, floor: float | None = None
) -> LinePanel:
    """Lines over layers, each with its own mark and dash pattern.

    Args:
        floor: values below it are drawn at the floor; their tooltips give the true value.
    """
    values = [v for line in lines for v in line.values if v is not None]
    known = values if floor is None else [max(v, floor) for v in values]
    layers = max(len(line.values) for line in lines)
    x = Scale(-0.5, layers - 0.5, LEFT, RIGHT)
    y = scale_for(known, BOTTOM, TOP, bend=True, pad=0.06)
    step = max(1, math.ceil(layers / 40)) * 5
    return LinePanel(
        title=title,
        help=help,
        series=[_layer_series(line, shape, x, y, len(lines)) for shape, line in enumerate(lines)],
        x_ticks=[(x(i), str(i)) for i in range(0, layers, step)],
        y_ticks=y.ticks(5),
        description="; ".join(_extent(line) for line in lines),
        x_name="layer",
        reference=y(0.0) if known and min(known) < 0 < max(known) else None,
    )


def _layer_series(line: LayerLine, shape: int, x: Scale, y: Scale, lines: int) -> Series:
    points: list[tuple[float, float, str]] = []
    breaks: set[int] = set()
    for layer, value in enumerate(line.values):
        if value is None:
            breaks.add(len(points))
        else:
            points.append((x(layer), y(value), f"{line.label}, layer {layer}: {number(value)}"))
    marked = lines * len(points) <= 400
    return Series(line.colour, points, marked, line.label, shape, breaks=frozenset(breaks))


def _extent(line: LayerLine) -> str:
    known = [(value, layer) for layer, value in enumerate(line.values) if value is not None]
    if not known:
        return f"{line.label}: {MISSING}"
    (low, lowest), (high, highest) = min(known), max(known)
    extremes = f"{number(low)} at layer {lowest} to {number(high)} at layer {highest}"
    return f"{line.label}: from {extremes}"
