"""The comparison of two checkpoints, A and B: every metric of both, and the items that differ."""

from __future__ import annotations

from typing import Literal

from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.contracts.references import TreeRef

Better = Literal["A", "B", "neither"]


class FigureComparison(Contract):
    """One metric of A and B.

    Attributes:
        difference: B minus A.
        low, high: the 95 % confidence interval of the difference (paired bootstrap over items).
        p_value: two-sided; the null hypothesis is that A and B are equal. Adjusted over all metrics
            by Holm's method.
        items: number of paired items; 0 if the metric has no items, and then there is no test.
        lost: items that only A answers correctly, where items are right or wrong.
        won: items that only B answers correctly.
        better: ``neither`` unless the p-value is below the significance level.
        reason: why there is no interval or test.
    """

    metric: str
    unit: str
    higher_is_better: bool
    a: float | None
    b: float | None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    items: int = 0
    lost: int | None = None
    won: int | None = None
    better: Better = "neither"
    reason: str = ""


class ItemChange(Contract):
    """One item in A and B. ``loss`` is how much worse B is, in the metric's unit."""

    metric: str
    item: str
    slice: str
    a: float | None
    b: float | None
    loss: float
    prompt: str | None = None
    text_a: str | None = None
    text_b: str | None = None


class SideBySide(Contract):
    """The whole comparison.

    Attributes:
        figures: one per metric, in the recipe's order.
        changed: items that one checkpoint answers correctly and the other does not.
        regressions: per metric, the items with the largest losses of B.
    """

    figures: tuple[FigureComparison, ...]
    changed: tuple[ItemChange, ...]
    regressions: tuple[ItemChange, ...]


class SideBySideRun(SideBySide):
    """The result of a compare run. ``--json`` prints it as the last line."""

    run_id: str
    a: str
    b: str
    checkpoints: dict[Literal["A", "B"], TreeRef]
    base_sha256: str
    seconds: dict[str, float]
    cache_hits: tuple[str, ...]
