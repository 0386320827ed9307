"""Compute each column's share of the base's predicted time, for budgets on time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from layerwright.tasks.choose.base import Problem, named
from layerwright.tasks.choose.columns import Column
from layerwright.tasks.choose.cover import Vector
from layerwright.tasks.contracts.plan import PassTime
from layerwright.tasks.errors import InputError

TimeField = Literal["prefill_seconds", "decode_seconds_per_token"]


def time_uses(
    problem: Problem, columns: Sequence[Column], field: str, time_field: TimeField
) -> tuple[Vector, float]:
    """Return the shares of the base's predicted time: of each column (N,), and outside the layers.

    Args:
        field: recipe field of the budget, for error messages.
        time_field: the time to read.

    Raises:
        InputError: there are no measured times at the problem's context length, or none of a
            column.
    """
    layers, times = problem.base_time(), problem.times
    if layers is None or times is None:
        raise InputError(
            f"{field} needs measured times at {problem.context_tokens:,} tokens",
            where=f"choose.selector.{field}",
            remedy=f"add `costs: {{context_tokens: [{problem.context_tokens}]}}` to the recipe",
        )
    outside = getattr(times.outside.time, time_field)
    total = outside + getattr(layers, time_field)
    uses = np.array([getattr(_time(column, field), time_field) for column in columns])
    return uses / total, outside / total


def _time(column: Column, field: str) -> PassTime:
    if column.time is None:
        assert column.candidate is not None  # the table always has the base's layers
        raise InputError(
            f"the cost table has no time of {named(column.candidate.spec)}",
            where=f"choose.selector.{field}",
            remedy="remove the strategy, or measure the costs with it",
        )
    return column.time
