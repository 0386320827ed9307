"""Axes of charts: map a value to a position in the drawing, and place the ticks."""

import math
from collections.abc import Iterable
from statistics import median
from typing import NamedTuple

from layerwright.tasks.report.formats import number

WIDTH = 330.0  # of a drawing; it is a phone's width, so that text has the same size everywhere


class Scale(NamedTuple):
    """Maps [low, high] to [start, stop] of the drawing; linear, without ``log`` and ``bend``.

    ``bend``: arcsinh(value / bend): linear up to it, logarithmic above, on both sides of zero.
    """

    low: float
    high: float
    start: float
    stop: float
    log: bool = False
    bend: float | None = None

    def __call__(self, value: float) -> float:
        low, high, here = (self._bent(v) for v in (self.low, self.high, value))
        share = (here - low) / (high - low)
        position = self.start + min(max(share, 0.0), 1.0) * (self.stop - self.start)
        return round(position, 1 if abs(self.stop - self.start) > 1 else 3)

    def maybe(self, value: float | None) -> float | None:
        return None if value is None else self(value)

    def _bent(self, value: float) -> float:
        if self.log:
            return math.log(max(value, 1e-12))
        return math.asinh(value / self.bend) if self.bend else value

    def ticks(self, wanted: int = 4) -> list[tuple[float, str]]:
        """Positions and labels of round values inside the scale."""
        if self.log:
            values = _powers(self.low, self.high)
        elif self.bend:
            values = _powers_and_zero(self.low, self.high, self.bend)
        else:
            values = _steps(self.low, self.high, wanted)[1]
        return [(self(v), number(v)) for v in values]


def _steps(low: float, high: float, wanted: int) -> tuple[float, list[float]]:
    """The smallest round step that gives at most ``wanted`` ticks, and those ticks."""
    power = 10.0 ** math.floor(math.log10((high - low) / wanted))
    for step in (power, 2 * power, 2.5 * power, 5 * power, 10 * power, 20 * power):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first + 1 <= wanted:
            break
    return step, [round(i * step, 12) for i in range(first, last + 1)]


def _powers(low: float, high: float) -> list[float]:
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5)):
        values = [f * 10.0**e for e in exponents for f in factors]
        values = [v for v in values if low <= v <= high]
        if len(values) >= 2:
            return values if len(values) <= 6 else values[:: math.ceil(len(values) / 6)]
    return [low, high]


def _powers_and_zero(low: float, high: float, bend: float) -> list[float]:
    """Zero, and powers of ten times ``bend``: at most two below zero and three above."""

    def powers(limit: float, most: int) -> list[float]:
        values = [bend * 10.0**e for e in range(12) if bend * 10.0**e <= limit]
        return values[:: -math.ceil(len(values) / most)] if values else []

    below, above = powers(-low, 2), powers(high, 3)
    return [-v for v in below] + [0.0] * (low <= 0 <= high) + above[::-1]


def scale_for(
    values: Iterable[float],
    start: float,
    stop: float,
    *,
    zero: bool = False,
    log: bool = False,
    bend: bool = False,
    pad: float = 0.08,
) -> Scale:
    """A scale for ``values``, with some padding.

    Args:
        zero: include zero.
        log: logarithmic, if all values are positive and span more than a factor of three.
        bend: see ``Scale``; only if the largest value is at least 30 times the median.
        pad: padding on each side, as a share of the values' range.
    """
    values = list(values)
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if log and low > 0 and high / low > 3:
        return Scale(low / 1.4, high * 1.4, start, stop, log=True)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if bend and (corner := _corner(values)):
        return Scale(1.4 * min(low, 0.0), 1.4 * max(high, 0.0), start, stop, bend=corner)
    if high - low <= 1e-12 * max(abs(low), abs(high)):  # all values are equal
        room = 0.1 * abs(high) or 1.0
        low, high = (low if zero and low == 0 else low - room), high + room
    padding = pad * (high - low)
    low = low if zero and low == 0 else low - padding
    return Scale(low, high if zero and high == 0 else high + padding, start, stop)


def _corner(values: list[float]) -> float | None:
    """The power of ten at the median magnitude; None if the largest is less than 30 times it."""
    sizes = [abs(v) for v in values if v]
    if not sizes or max(sizes) < 30 * median(sizes):
        return None
    return 10.0 ** math.floor(math.log10(median(sizes)))
