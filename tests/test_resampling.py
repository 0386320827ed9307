"""The bootstrap: its coverage, whole items, and the same seed."""

import numpy as np

from layerwright.tasks.resampling import RESAMPLES, resample, weighted_mean


def interval(values: np.ndarray, seed: int):
    found = resample((values, np.ones_like(values)), weighted_mean, seed)
    return found.confidence_interval


def test_coverage_is_near_95_percent() -> None:
    hits = 0
    for seed in range(200):
        low, high = interval(np.random.default_rng(seed).exponential(3.0, 40), seed)
        hits += low < 3.0 < high
    assert 0.88 <= hits / 200 <= 0.98


def test_an_item_is_drawn_with_its_weight() -> None:
    values, weights = np.array([1.0, 5.0] * 30), np.array([1.0, 3.0] * 30)
    found = resample((values, weights), weighted_mean, 0)
    assert found.bootstrap_distribution.shape == (RESAMPLES,)
    assert np.isclose(found.bootstrap_distribution.mean(), 4.0, atol=0.05)


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(1).normal(size=30)
    assert interval(values, 7) == interval(values, 7) != interval(values, 8)
