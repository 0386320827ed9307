"""Learning rate, row order and window dropout, by the step alone: a resumed run saves no state."""

import math
from functools import lru_cache

import numpy as np

from layerwright.tasks.recipe.training import WindowDropout


def share_of_peak(step: int, *, warmup_steps: int, steps: int, schedule: str = "cosine") -> float:
    """Learning rate of a step, as a share of the peak.

    A linear warm-up reaches the peak at step ``warmup_steps``. Then ``cosine`` and ``linear`` decay
    towards 0 over the remaining steps; ``constant`` stays at the peak. No step has rate 0, because
    every step matters in a run of a few dozen steps. (The schedules of Transformers start at 0 and
    waste a step.)
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
    """Indices of the ``count`` rows to read after ``first`` of a text's ``rows`` have been read.
    Each pass over the rows has its own random order, and reads every row once.
    """
    positions = (divmod(position, rows) for position in range(first, first + count))
    return [int(_order(rows, seed, number)[offset]) for number, offset in positions]


@lru_cache(maxsize=2)  # a step reads from one pass or two
def _order(rows: int, seed: int, pass_number: int) -> np.ndarray:
    return np.random.default_rng((seed, pass_number)).permutation(rows)


def windows_off(
    dropout: WindowDropout, step: int, *, first: int, count: int, steps: int, seed: int
) -> list[bool]:
    """For each row of a step, whether its windows are off.

    The share of such rows changes linearly from ``start`` at the first step to ``end`` at the last.
    Each row draws at random, seeded by the number of rows read before it.
    """
    done = step / (steps - 1) if steps > 1 else 0.0
    share = dropout.start + (dropout.end - dropout.start) * done
    rows = range(first, first + count)
    return [bool(np.random.default_rng((seed, 1, row)).random() < share) for row in rows]
