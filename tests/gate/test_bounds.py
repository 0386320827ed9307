"""Rules on a bound: passed, failed or inconclusive, and at which rates."""

import numpy as np
import pytest
from gate.evidence import bits, evidence, judge, only
from scipy.stats import binomtest, bootstrap

from layerwright.tasks.gate.comparison import compare_items
from layerwright.tasks.gate.pairs import Pairs
from layerwright.tasks.recipe.gate import GateRule

RULE = {"metric": "recall.x", "min": 0.95, "on": "bound"}


def recall(base: list[bool], candidate: list[bool]):
    return evidence(base={"recall.x": base}, candidate={"recall.x": candidate})


def test_enough_items_without_a_loss_pass() -> None:
    check = only(recall(bits(200, 180), bits(200, 180)), **RULE)
    assert check.passed
    assert check.value == 1
    assert 0.95 <= check.bound <= 0.05 ** (1 / 180)
    assert check.margin == pytest.approx(check.bound - 0.95)
    assert (check.items, check.inconclusive, check.rule) == (
        200, False, "ratio to the base >= 0.95, 95 % bound",
    )  # fmt: skip


def test_too_few_items_to_tell_are_inconclusive_even_without_a_loss() -> None:
    check = only(recall(bits(24, 22), bits(24, 22)), **RULE)
    assert (check.passed, check.inconclusive, check.rejects) == (False, True, True)
    assert check.bound <= 0.05 ** (1 / 22)
    assert "inconclusive" in check.reason
    assert "cannot show more than 0.8727" in check.reason


def test_fewer_than_the_least_give_no_bound() -> None:
    check = only(recall(bits(12, 12), bits(12, 12)), **RULE)
    assert (check.passed, check.inconclusive, check.bound) == (False, True, None)
    assert "too few items: 12, at least 20" in check.reason
    loose = judge(recall(bits(12, 12), bits(12, 12)), GateRule(**RULE), min_items=12).checks[0]
    assert loose.bound is not None


def test_a_loss_that_is_shown_fails_and_says_so() -> None:
    check = only(recall(bits(200, 190), bits(200, 120)), **RULE)
    assert (check.passed, check.inconclusive) == (False, False)
    assert check.p_value < 0.05
    assert "outside the limit (at least 0.95)" in check.reason


def test_a_small_loss_is_inconclusive_and_says_what_would_be_seen() -> None:
    check = only(recall(bits(200, 190), bits(200, 183)), **RULE)
    assert check.inconclusive
    assert check.detectable == pytest.approx(0.03, abs=0.02)
    assert f"a change of {check.detectable:.3g}" in check.reason


def test_a_candidate_that_wins_much_is_not_held_down_by_a_weak_base() -> None:
    check = only(recall(bits(200, 20), bits(200, 150)), **RULE)
    assert check.passed
    assert check.bound > 3


@pytest.mark.parametrize("limit", [0.7, 0.8])
def test_a_share_by_itself_has_the_exact_bound_and_test(limit: float) -> None:
    given = recall(bits(100, 90), bits(100, 76))
    check = only(given, metric="recall.x", compare="value", min=limit, on="bound")
    exact = binomtest(76, 100).proportion_ci(confidence_level=0.90, method="exact")
    assert check.bound == pytest.approx(exact.low)
    assert check.p_value == pytest.approx(binomtest(76, 100, limit, alternative="less").pvalue)


@pytest.mark.parametrize("compare", ["ratio", "difference"])
def test_drawing_kinds_of_change_is_scipys_bootstrap_of_items(compare: str) -> None:
    """The same table, item by item, with the one lost and the one won in it."""
    base, mine = np.array([bits(80, 60), bits(80, 60)], dtype=float)
    mine[50:57], mine[70:73] = 0, 1
    rule = GateRule(metric="recall.x", compare=compare, min=0.0)
    pairs = Pairs(mine, base, np.ones(80), "mean", True)
    found = compare_items(rule, 0.0, pairs, 0.05, seed=0)

    def figure(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
        a, b = a.mean(axis=axis), b.mean(axis=axis)
        return a / b if compare == "ratio" else a - b

    scipys = bootstrap(
        (np.append(mine, [0, 1]), np.append(base, [1, 0])), figure, paired=True, vectorized=True,
        n_resamples=20_000, batch=2_000, alternative="greater", method="percentile",
        rng=np.random.default_rng(1),
    )  # fmt: skip
    assert found.bound == pytest.approx(scipys.confidence_interval.low, abs=0.01)
    assert found.detectable == pytest.approx(2.4865 * scipys.standard_error, rel=0.05)


def test_perplexity_is_bounded_from_above_by_pairs() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(3.0, 0.5, 60)  # blocks differ far more than the arms do
    given = evidence(
        base={"perplexity.x": base},
        candidate={"perplexity.x": base + rng.normal(0.02, 0.01, 60)},
    )
    check = only(given, metric="perplexity.x", max=1.05, on="bound")
    assert check.passed
    assert 1.02 < check.bound < 1.03
    tight = only(given, metric="perplexity.x", max=1.01, on="bound")
    assert (tight.passed, tight.inconclusive) == (False, False)


@pytest.mark.parametrize("n", [60, 300])
def test_a_candidate_at_the_limit_passes_no_more_often_than_stated(n: int) -> None:
    """The base is always right, the candidate 9 times of 10: a floor of 0.9 is its truth."""
    rng = np.random.default_rng(n)
    rule = GateRule(metric="recall.x", min=0.9, on="bound")
    passed = 0
    for seed in range(300):
        mine = rng.random(n) < 0.9
        pairs = Pairs(mine.astype(float), np.ones(n), np.ones(n), "mean", True)
        passed += compare_items(rule, mine.mean(), pairs, 0.05, seed).bound >= 0.9
    assert passed / 300 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)


def test_the_mean_over_tasks_is_surer_than_each() -> None:
    rng = np.random.default_rng(0)
    base = {f"task.{i}": rng.random(150) < 0.8 for i in range(4)}
    mine = {name: right ^ (rng.random(150) < 0.05) for name, right in base.items()}
    given = evidence(base=base, candidate=mine)
    rule = {"metric": "task.*", "min": 0.8, "on": "bound"}
    each = judge(given, GateRule(**rule)).checks
    (mean,) = judge(given, GateRule(**rule, across="mean")).checks
    assert mean.value == pytest.approx(np.mean([check.value for check in each]))
    assert mean.value - mean.bound < 0.7 * np.mean([c.value - c.bound for c in each])
    assert mean.items == 600
    assert mean.rule == "mean ratio to the base >= 0.8, 95 % bound"
    (few,) = judge(
        evidence(base=base | {"task.9": bits(8, 8)}, candidate=mine | {"task.9": bits(8, 8)}),
        GateRule(**rule, across="mean"),
    ).checks
    assert few.inconclusive
    assert "too few items: 8, at least 20" in few.reason
    (lost,) = judge(
        evidence(base=base, candidate={n: v for n, v in mine.items() if n != "task.2"}),
        GateRule(**rule, across="mean"),
    ).checks
    assert not lost.passed
    assert "task.2: the candidate's value is missing" in lost.reason


def test_the_same_seed_gives_the_same_decision() -> None:
    given = recall(bits(200, 190), bits(200, 186))
    assert only(given, **RULE) == only(given, **RULE)
