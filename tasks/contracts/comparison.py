"""The comparison of two checkpoints, A and B: every metric of both, and the items that differ."""

from typing import Literal

from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.contracts.references import TreeRef

Better = Literal["A", "B", "neither"]


class FigureComparison(Contract):
    """One metric of A and B."""

    metric: str
    unit: str
    higher_is_better: bool
    a: float | None
    b: float | None
    difference: float | None = None  # B minus A
    # to `high`: its 95 % confidence interval (paired bootstrap over items)
    low: float | None = None
    high: float | None = None
    p_value: float | None = None  # two-sided, of A equal to B; adjusted over all metrics (Holm)
    items: int = 0  # paired items; without them there is no test
    lost: int | None = None  # items that only A answers correctly, where items are right or wrong
    won: int | None = None  # items that only B answers correctly
    better: Better = "neither"  # ``neither`` unless the p-value is below the significance level
    reason: str = ""  # why there is no interval or test


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
    """The whole comparison."""

    figures: tuple[FigureComparison, ...]  # one per metric, in the recipe's order
    changed: tuple[ItemChange, ...]  # those that one checkpoint alone answers correctly
    regressions: tuple[ItemChange, ...]  # per metric, the items with the largest losses of B


class SideBySideRun(SideBySide):
    """The result of a compare run. ``--json`` prints it as the last line."""

    run_id: str
    a: str
    b: str
    checkpoints: dict[Literal["A", "B"], TreeRef]
    base_sha256: str
    seconds: dict[str, float]
    cache_hits: tuple[str, ...]
