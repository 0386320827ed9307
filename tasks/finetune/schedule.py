"""What step n does, as functions of n alone: a resumed run needs no state of either."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np


def learning_rate(step: int, *, peak: float, warmup_steps: int, steps: int) -> float:
    """Linear warm-up that reaches ``peak`` at step ``warmup_steps``, then cosine decay towards 0.

    Neither the first nor the last step has rate 0: in a run of a few dozen steps each counts.
    (The schedules of Transformers start at 0 and would spend a step on it.)
    """
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / (steps - warmup_steps)))


def row_indices(step: int, *, rows: int, rows_per_step: int, seed: int) -> list[int]:
    """Which rows of the text a step reads.

    The text is read in a random order, pass after pass; each pass has an order of its own, and no
    row comes twice in one pass.
    """
    positions = range(step * rows_per_step, (step + 1) * rows_per_step)
    places = (divmod(position, rows) for position in positions)
    return [int(_order(rows, seed, number)[offset]) for number, offset in places]


@lru_cache(maxsize=2)  # a step touches one pass, or two
def _order(rows: int, seed: int, number: int) -> np.ndarray:
    return np.random.default_rng((seed, number)).permutation(rows)
