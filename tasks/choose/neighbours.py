"""Limits between neighbouring columns: a strategy that patches the layer below needs its MLP."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from layerwright.tasks.choose.columns import Column
from layerwright.tasks.choose.cover import Limit
from layerwright.tasks.strategies.base import Strategy


def neighbour_limits(columns: Sequence[Column]) -> list[Limit]:
    """For every column c that patches the layer below: x_c <= sum of x_b over allowed columns b.

    Column b is allowed if it ends where c starts, and keeps its feed-forward or merges with c.
    """
    strategies = [c.candidate.strategy if c.candidate else None for c in columns]
    limits = []
    for index, (above, strategy) in enumerate(zip(columns, strategies, strict=True)):
        if strategy is None or not strategy.patches_below:
            continue
        allowed = [
            column.stop == above.start and _can_be_below(other, strategy)
            for column, other in zip(columns, strategies, strict=True)
        ]
        uses = -np.array(allowed, dtype=np.float64)
        uses[index] = 1.0
        limits.append((uses, 0.0))
    return limits


def _can_be_below(below: Strategy | None, strategy: Strategy) -> bool:
    if below is None or below.keeps_feed_forward:
        return True
    return below == strategy and strategy.merges
