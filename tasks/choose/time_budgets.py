"""What a plan may cost in time, from the measured times of its parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from layerwright.tasks.choose.base import Problem, named
from layerwright.tasks.choose.columns import Column
from layerwright.tasks.choose.cover import Vector
from layerwright.tasks.contracts.plan import PassTime
from layerwright.tasks.errors import InputError

Figure = Literal["prefill_seconds", "decode_seconds_per_token"]


def time_uses(
    problem: Problem, columns: Sequence[Column], field: str, figure: Figure
) -> tuple[Vector, float]:
    """Shares of the base's predicted time: of each column (N,), and of what is outside the layers.

    Args:
        field: the budget, for messages.

    Raises:
        InputError: no times at the problem's context, or none of a column.
    """
    layers, times = problem.base_time(), problem.times
    if layers is None or times is None:
        raise InputError(
            f"{field} needs measured times at {problem.context_tokens:,} tokens",
            where=f"choose.selector.{field}",
            remedy=f"add `costs: {{context_tokens: [{problem.context_tokens}]}}` to the recipe",
        )
    outside = getattr(times.outside.time, figure)
    whole = outside + getattr(layers, figure)
    uses = np.array([getattr(_time(column, field), figure) for column in columns])
    return uses / whole, outside / whole


def _time(column: Column, field: str) -> PassTime:
    if column.time is None:
        assert column.candidate is not None  # layers of the base are always timed
        raise InputError(
            f"the cost table has no time of {named(column.candidate.spec)}",
            where=f"choose.selector.{field}",
            remedy="leave the strategy out, or measure the costs with it",
        )
    return column.time
