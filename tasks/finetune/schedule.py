"""What step n does, as functions of n alone: a resumed run needs no state of either."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from layerwright.tasks.recipe.training import WindowDropout


def share_of_peak(step: int, *, warmup_steps: int, steps: int, schedule: str = "cosine") -> float:
    """The learning rate of a step, as a share of its peak.

    Linear warm-up that reaches the peak at step ``warmup_steps``, then decay towards 0.

    ``cosine`` and ``linear`` decay over the steps that are left, ``constant`` stays at the peak.
    Neither the first nor the last step has rate 0: in a run of a few dozen steps each counts.
    (The schedules of Transformers start at 0 and would spend a step on it.)
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    done = (step - warmup_steps) / (steps - warmup_steps)
    if schedule == "constant":
        return 1.0
    if schedule == "linear":
        return 1 - done
    return 0.5 * (1 + math.cos(math.pi * done))


def row_indices(first: int, count: int, *, rows: int, seed: int) -> list[int]:
    """Which ``count`` rows of the text come after ``first`` rows were read.

    The text is read in a random order, pass after pass; each pass has an order of its own, and no
    row comes twice in one pass.
    """
    places = (divmod(position, rows) for position in range(first, first + count))
    return [int(_order(rows, seed, number)[offset]) for number, offset in places]


@lru_cache(maxsize=2)  # a step touches one pass, or two
def _order(rows: int, seed: int, number: int) -> np.ndarray:
    return np.random.default_rng((seed, number)).permutation(rows)


def windows_off(
    dropout: WindowDropout, step: int, *, first: int, count: int, steps: int, seed: int
) -> list[bool]:
    """Which of a step's rows are read without the window.

    The share goes linearly from ``start`` at the first step to ``end`` at the last; each row
    draws for itself, by the number of rows that were read before it.
    """
    done = step / (steps - 1) if steps > 1 else 0.0
    share = dropout.start + (dropout.end - dropout.start) * done
    rows = range(first, first + count)
    return [bool(np.random.default_rng((seed, 1, row)).random() < share) for row in rows]
