"""Bootstrap intervals: their coverage, and neighbouring tokens not taken for independent."""

import numpy as np
import pytest

from tasks.evaluate.interval import BLOCK_TOKENS, token_interval


def test_coverage_is_near_95_percent():
    hits = 0
    for seed in range(200):
        values = np.random.default_rng(seed).exponential(3.0, (8, 512))
        low, high = token_interval(values, seed)
        hits += low < 3.0 < high
    assert 0.88 <= hits / 200 <= 0.98


def test_tokens_of_a_block_count_as_one_observation():
    rng = np.random.default_rng(0)
    blocks = rng.exponential(3.0, (64, 1))
    alike = np.repeat(blocks, BLOCK_TOKENS, axis=1)
    apart = rng.permutation(alike.ravel()).reshape(alike.shape)
    widths = [np.ptp(token_interval(values, 0)) for values in (alike, apart)]
    assert widths[0] > 5 * widths[1]


def test_the_transform_applies_to_the_mean():
    values = np.random.default_rng(0).exponential(3.0, (8, 1023))
    low, high = token_interval(values, 0)
    assert token_interval(values, 0, np.exp) == pytest.approx((np.exp(low), np.exp(high)))
    assert token_interval(values, 0) == (low, high)  # the same seed, the same interval


def test_values_without_spread_and_values_of_one_block():
    assert token_interval(np.full((4, 300), 2.5), 0) == pytest.approx((2.5, 2.5))
    assert token_interval(np.ones((1, BLOCK_TOKENS)), 0) is None
