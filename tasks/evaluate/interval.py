"""95 % intervals of figures that are means over tokens."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.stats import bootstrap

BLOCK_TOKENS = 128
RESAMPLES = 2000


def token_interval(
    values: np.ndarray,
    seed: int,
    transform: Callable[[np.ndarray], np.ndarray] = lambda mean: mean,
) -> tuple[float, float] | None:
    """Bootstrap interval of ``transform(mean(values))``, by resampling blocks of tokens.

    Neighbouring tokens are not independent, so runs of 128 tokens of a row are drawn whole
    (Künsch's block bootstrap, percentile method). For a paired interval give the differences.

    Args:
        values: (rows, tokens) of one figure per token, for instance NLL in nats.
        seed: of the resampling.

    Returns:
        low and high, or None where there is only one block.
    """
    starts = np.arange(0, values.shape[1], BLOCK_TOKENS)
    sums = np.add.reduceat(values.astype(np.float64), starts, axis=1)
    counts = np.broadcast_to(np.diff(np.append(starts, values.shape[1])), sums.shape)
    if sums.size < 2:
        return None

    def statistic(sums: np.ndarray, counts: np.ndarray, axis: int = -1) -> np.ndarray:
        return transform(sums.sum(axis=axis) / counts.sum(axis=axis))

    with np.errstate(over="ignore", invalid="ignore"):  # the point estimate says so already
        found = bootstrap(
            (sums.ravel(), counts.ravel()),
            statistic,
            paired=True,
            vectorized=True,
            n_resamples=RESAMPLES,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return float(found.low), float(found.high)
