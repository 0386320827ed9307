"""The paired bootstrap, which all confidence intervals use."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.stats import bootstrap

RESAMPLES = 2000
NUMBERS_AT_ONCE = 2_000_000  # items x resamples in memory

Statistic = Callable[..., np.ndarray]  # f(*arrays, axis), vectorised


def resample(arrays: Sequence[np.ndarray], statistic: Statistic, seed: int) -> Any:
    """scipy's percentile bootstrap; a resample takes the same items from all arrays.

    Args:
        arrays: each (items,).
        statistic: a function of these arrays along an axis.

    Returns:
        scipy's BootstrapResult: ``confidence_interval`` at 95 %, ``bootstrap_distribution``
        (RESAMPLES,).
    """
    with np.errstate(all="ignore"):  # infinities and NaN are visible in the result
        return bootstrap(
            tuple(arrays),
            statistic,
            paired=True,
            vectorized=True,
            n_resamples=RESAMPLES,
            batch=max(1, NUMBERS_AT_ONCE // len(arrays[0])),
            method="percentile",
            rng=np.random.default_rng(seed),
        )


def weighted_mean(values: np.ndarray, weights: np.ndarray, axis: int = -1) -> np.ndarray:
    """sum(w v) / sum(w) along an axis."""
    return (weights * values).sum(axis=axis) / weights.sum(axis=axis)
