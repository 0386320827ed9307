"""Two checkpoints side by side: every figure of both, paired, and the items that differ."""

from __future__ import annotations

from typing import Literal

from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.contracts.references import TreeRef

Better = Literal["A", "B", "neither"]


class FigureComparison(Contract):
    """One metric of A and B.

    Attributes:
        difference: B minus A; ``low`` and ``high`` bound its 95 % interval, by the paired bootstrap
            over items.
        p_value: of so large a difference between equal arms, two-sided; by Holm over all metrics.
        items: how many both arms have; 0 where the metric has none, and there is no test.
        lost, won: items that A alone, and B alone, gets right, where they are right or wrong.
        better: where the p-value is below the significance.
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
    """One item in both arms. ``loss``: by how much B is worse, in the metric's own unit."""

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
    """Every metric in the recipe's order; what changed; per metric, the items that B did worst.

    ``changed``: items that are right in one arm and wrong in the other.
    """

    figures: tuple[FigureComparison, ...]
    changed: tuple[ItemChange, ...]
    regressions: tuple[ItemChange, ...]


class SideBySideRun(SideBySide):
    """The result of a compare run, and the last line that ``--json`` prints."""

    run_id: str
    a: str
    b: str
    checkpoints: dict[Literal["A", "B"], TreeRef]
    base_sha256: str
    seconds: dict[str, float]
    cache_hits: tuple[str, ...]
