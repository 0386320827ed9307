"""Axes of the charts: from a figure to a place in the drawing, and where the ticks stand."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from layerwright.tasks.report.formats import number

WIDTH = 330.0  # of a drawing: a phone's width, so that text keeps its size everywhere


@dataclass(frozen=True)
class Scale:
    """Maps [low, high] to [start, stop] of the drawing: linearly, or as ``log`` or ``bend`` say.

    ``bend``: linear below it and logarithmic above, on both sides of zero (arcsinh of v / bend).
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
        place = self.start + min(max(share, 0.0), 1.0) * (self.stop - self.start)
        return round(place, 1 if abs(self.stop - self.start) > 1 else 3)

    def _bent(self, value: float) -> float:
        if self.log:
            return math.log(max(value, 1e-12))
        return math.asinh(value / self.bend) if self.bend else value

    def ticks(self, wanted: int = 4) -> list[tuple[float, str]]:
        """Places and labels of round figures inside the scale."""
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
    """Zero, and powers of ten from ``bend`` on, at most two below zero and three above."""

    def powers(limit: float, most: int) -> list[float]:
        found = [bend * 10.0**e for e in range(12) if bend * 10.0**e <= limit]
        return found[:: -math.ceil(len(found) / most)] if found else []

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
    """A scale with some air around ``values``; it begins at zero, is logarithmic, or bends, on
    request.

    A logarithmic scale needs positive values over more than a factor of three, one that bends a
    greatest value of 30 times the median, else they are linear.
    """
    some = list(values)
    low, high = (min(some), max(some)) if some else (0.0, 1.0)
    if log and low > 0 and high / low > 3:
        return Scale(low / 1.4, high * 1.4, start, stop, log=True)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if bend and (corner := _corner(some)):
        return Scale(1.4 * min(low, 0.0), 1.4 * max(high, 0.0), start, stop, bend=corner)
    if high - low <= 1e-12 * max(abs(low), abs(high)):  # all the same: room around it
        room = 0.1 * abs(high) or 1.0
        low, high = (low if zero and low == 0 else low - room), high + room
    air = pad * (high - low)
    return Scale(
        low if zero and low == 0 else low - air,
        high if zero and high == 0 else high + air,
        start,
        stop,
    )


def _corner(values: list[float]) -> float | None:
    """The power of ten at the median size, where the greatest is 30 times as large."""
    sizes = [abs(v) for v in values if v]
    if not sizes or max(sizes) < 30 * median(sizes):
        return None
    return 10.0 ** math.floor(math.log10(median(sizes)))
