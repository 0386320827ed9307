"""McNemar and Holm: statsmodels' figures for the same tables, and their definitions."""

from itertools import chain, combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, norm

from layerwright.tasks.gate.comparison import best_bound, detectable_change, holm, mcnemar

# statsmodels 0.15.0, contingency_tables.mcnemar([[50, lost], [won, 20]], exact=True): two-sided
TWO_SIDED = {
    (8, 2): 0.109375,
    (15, 5): 0.04138946533203125,
    (30, 12): 0.007915897334896727,
    (121, 80): 0.004660051974640136,
    (9, 2): 0.0654296875,
    (7, 0): 0.015625,
}


@pytest.mark.parametrize(("table", "expected"), TWO_SIDED.items())
def test_mcnemar_agrees_with_statsmodels(table, expected) -> None:
    lost, won = table
    assert 2 * mcnemar(lost, won) == pytest.approx(expected, rel=1e-12)
    # the other side: what is won cannot be a loss
    assert mcnemar(won, lost) == pytest.approx(binom.sf(won - 1, lost + won, 0.5))


def test_nothing_changed_is_no_loss() -> None:
    assert mcnemar(0, 0) == 1
    assert mcnemar(1, 0) == 0.5


@pytest.mark.parametrize(
    ("raw", "expected"),  # statsmodels 0.15.0, multitest.multipletests(..., method="holm")
    [
        ([0.012, 0.03, 0.0004, 0.2, 0.049, 0.03, 0.9], [0.072, 0.15, 0.0028, 0.4, 0.15, 0.15, 0.9]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.2], [0.2]),
        ([], []),
    ],
)
def test_holm_agrees_with_statsmodels(raw, expected) -> None:
    assert holm(raw) == pytest.approx(expected, rel=1e-12)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.floats(0.001, 0.3))
def test_holm_rejects_what_the_closure_of_bonferroni_rejects(raw, level) -> None:
    """Holm is the closed test of Bonferroni's: reject i if every set with i rejects as a whole."""
    indices = range(len(raw))
    sets = list(chain.from_iterable(combinations(indices, k) for k in range(1, len(raw) + 1)))
    slack = 1e-9  # products of floats at the level itself may fall on either side
    for index, adjusted in enumerate(holm(raw)):
        margins = [min(raw[i] for i in s) * len(s) - level for s in sets if index in s]
        if all(abs(margin) > slack for margin in margins):
            assert (adjusted < level) == all(margin < 0 for margin in margins)


@pytest.mark.parametrize("n", [1, 24, 298, 299])
def test_the_best_bound_is_clopper_and_pearsons(n: int) -> None:
    exact = binomtest(n, n).proportion_ci(confidence_level=0.90, method="exact").low
    assert best_bound(n, 0.05) == pytest.approx(exact)
    assert (best_bound(n, 0.05) >= 0.99) == (n >= 299)


def test_a_detectable_change_is_found_4_times_of_5() -> None:
    draws = np.random.default_rng(0).normal(-detectable_change(0.02, 0.05), 0.02, 100_000)
    found = draws + norm.ppf(0.95) * 0.02 < 0
    assert found.mean() == pytest.approx(0.8, abs=0.01)
