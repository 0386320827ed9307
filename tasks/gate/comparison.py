"""Compare the candidate's figure with another arm's: value, confidence bound, p-value, power."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, multinomial, norm

from layerwright.tasks.contracts.evaluation import Measurement
from layerwright.tasks.gate.pairs import NoEvidence, Pairs
from layerwright.tasks.recipe.gate import GateRule
from layerwright.tasks.resampling import RESAMPLES, resample

POWER = 0.8


def mcnemar(lost: int, won: int) -> float:
    """The exact one-sided p-value of ``lost`` lost and ``won`` won items.

    p = P[Bin(lost + won, 1/2) >= lost]: if both arms are equally good, an item that changed is lost
    or won with equal probability (McNemar 1947, exact form).
    """
    if lost + won == 0:
        return 1.0
    return float(binomtest(lost, lost + won, 0.5, alternative="greater").pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for multiple tests, in the given order (Holm 1979).

    Rejecting all hypotheses with an adjusted p-value below a keeps the family-wise error rate at
    most a, for any dependence between the tests.

    p~_(i) = max over j <= i of min(1, (m - j + 1) p_(j)), with p_(1) <= ... <= p_(m).
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    steps = np.minimum(1.0, p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(steps)
    return adjusted.tolist()


def detectable_change(standard_error: float, significance: float) -> float:
    """The smallest true change that a one-sided test at ``significance`` finds with power 80 %.

    (z_{1-a} + z_{0.8}) SE, the normal approximation.
    """
    return float((norm.ppf(1 - significance) + norm.ppf(POWER)) * standard_error)


def best_bound(items: int, significance: float) -> float:
    """The highest one-sided lower bound that a share of ``items`` items can have: a^(1/n).

    It is Clopper and Pearson's bound when all items are right.
    """
    return float(significance ** (1 / items)) if items else 0.0


@dataclass(frozen=True)
class Comparison:
    """The figure that a rule limits, and its uncertainty."""

    value: float
    bound: float | None = None  # one-sided confidence bound on the side of the limit
    p_value: float | None = None  # of the hypothesis that the true figure is inside the limit
    items: int = 0  # behind bound and p-value
    detectable: float | None = None  # smallest change of `value` detected with a power of 80 %
    draws: np.ndarray | None = None  # (RESAMPLES,) of the figure, for the mean over several metrics
    best: float | None = None  # the best bound that any results on this number of items can give


def figure_from_values(
    rule: GateRule, mine: float, theirs: float | None, higher_is_better: bool
) -> float:
    """The figure of a rule, from the candidate's value and the other arm's.

    Raises:
        NoEvidence: the other arm's value is 0 or not finite, or the rule takes the ratio of
            negative values.
    """
    if rule.compare == "value":
        return mine
    name = rule.arm
    assert theirs is not None
    if rule.compare != "ratio":
        if theirs == 0 and higher_is_better:
            raise NoEvidence(f"no evidence: the {name} scores 0, so the candidate cannot be worse")
        return mine - theirs
    if theirs == 0 or not math.isfinite(mine / theirs):
        raise NoEvidence(f"no evidence: the ratio to the {name}'s value {theirs:g} is not finite")
    if theirs < 0 or mine < 0:
        raise NoEvidence("a ratio of negative values has no meaning; use compare: difference")
    return mine / theirs


def figure_from_items(rule: GateRule, pairs: Pairs) -> float:
    """As ``figure_from_values``, from the items of a slice."""
    mine = float(pairs.figure(pairs.candidate, pairs.weights))
    theirs = None if pairs.other is None else float(pairs.figure(pairs.other, pairs.weights))
    return figure_from_values(rule, mine, theirs, rule.is_floor)  # a minimum is one of a score


def compare_items(
    rule: GateRule, value: float, pairs: Pairs, significance: float, seed: int
) -> Comparison:
    """Bound, p-value and power of a figure, by the paired bootstrap over items.

    Items that are right or wrong need more care, because a few items without a single change do
    not prove that nothing changed:
    - One lost and one won item are added (Bonett and Price 2012, doi 10.3102/1076998611411915).
    - The bound is at most the one that this number of items gives if no item is lost.
    - A loss is significant only if McNemar's exact test agrees.
    - A share without a comparison gets Clopper and Pearson's bound.
    """
    if rule.compare == "value" and pairs.right_or_wrong:
        return _exact_share(rule, value, pairs, significance)
    draws = (_draw_changes if pairs.right_or_wrong else _draw_items)(rule, pairs, seed)
    bound, p_value, best = _bound(draws, rule, significance), bootstrap_p_value(draws, rule), None
    if pairs.right_or_wrong:
        lost, won = (pairs.lost, pairs.won) if rule.is_floor else (pairs.won, pairs.lost)
        p_value = max(p_value, mcnemar(lost, won))
        if rule.is_floor:
            best = _best(rule, pairs, significance)
            bound = min(bound, best)
    finite, change = bound if math.isfinite(bound) else None, _detectable(draws, significance)
    return Comparison(value, finite, p_value, len(pairs), change, draws, best)


def _bound(draws: np.ndarray, rule: GateRule, significance: float) -> float:
    return float(np.quantile(draws, significance if rule.is_floor else 1 - significance))


def _draw_items(rule: GateRule, pairs: Pairs, seed: int) -> np.ndarray:
    """(RESAMPLES,) draws of the rule's figure; an item is drawn with its results in both arms."""
    arrays = [pairs.candidate, pairs.weights, *([] if pairs.other is None else [pairs.other])]

    def statistic(
        c: np.ndarray, w: np.ndarray, o: np.ndarray | None = None, axis: int = -1
    ) -> np.ndarray:
        mine = pairs.figure(c, w, axis)
        return mine if o is None else _compare(rule, mine, pairs.figure(o, w, axis))

    return resample(arrays, statistic, seed).bootstrap_distribution


def _draw_changes(rule: GateRule, pairs: Pairs, seed: int) -> np.ndarray:
    """As ``_draw_items``, for items that are right or wrong, with one lost and one won item added.

    Each item is of one of four kinds (right in both arms, lost, won, wrong in both), so the counts
    of a bootstrap draw are multinomial.
    """
    assert pairs.other is not None
    right = int((pairs.candidate * pairs.other).sum())
    lost, won = pairs.lost + 1, pairs.won + 1
    kinds = np.array([right, lost, won, len(pairs) + 2 - right - lost - won])
    n, rng = kinds.sum(), np.random.default_rng(seed)
    kept, gone, gained, _ = multinomial.rvs(n, kinds / n, RESAMPLES, rng).T / n
    return _compare(rule, kept + gained, kept + gone)


def _compare(rule: GateRule, mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    if rule.compare != "ratio":
        return mine - theirs
    worst = 0.0 if rule.is_floor else np.inf  # for 0/0, a draw without a right item
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(mine / theirs, nan=worst, posinf=np.inf, neginf=-np.inf)


def _detectable(draws: np.ndarray, significance: float) -> float | None:
    with np.errstate(invalid="ignore"):
        change = detectable_change(float(np.std(draws, ddof=1)), significance)
    return change if math.isfinite(change) else None


def bootstrap_p_value(draws: np.ndarray, rule: GateRule) -> float:
    """The p-value of the hypothesis that the limit holds: the share of draws inside the limit."""
    inside = draws >= rule.limit if rule.is_floor else draws <= rule.limit
    return float((1 + inside.sum()) / (1 + len(draws)))


def mean_comparison(rule: GateRule, parts: Sequence[Comparison], significance: float) -> Comparison:
    """The mean of a figure over several metrics whose items are independent."""
    value = float(np.mean([part.value for part in parts]))
    all_draws = [part.draws for part in parts if part.draws is not None]
    if len(all_draws) < len(parts):
        return Comparison(value, items=min(part.items for part in parts))
    draws = np.mean(all_draws, axis=0)
    bound, best = _bound(draws, rule, significance), None
    if all(part.best is not None for part in parts):
        best = float(np.mean([part.best for part in parts if part.best is not None]))
        bound = min(bound, best)
    p_value, items = bootstrap_p_value(draws, rule), sum(part.items for part in parts)
    change = _detectable(draws, significance)
    return Comparison(value, bound, p_value, items, change, draws, best)


def chance_of_loss(
    candidate: Measurement, pairs: Pairs, significance: float, seed: int
) -> Comparison:
    """The one-sided p-value of the candidate's loss, under the hypothesis that the arms are equal.

    From McNemar's exact test for items that are right or wrong, else from the paired bootstrap.
    """
    better = candidate.higher_is_better
    if pairs.right_or_wrong:
        n, lost, won = len(pairs), pairs.lost, pairs.won
        p_value = mcnemar(lost, won) if better else mcnemar(won, lost)
        # standard error of the difference with one lost and one won item added: never 0
        error = math.sqrt(lost + won + 2 - (lost - won) ** 2 / n) / n
        return Comparison(p_value, None, p_value, n, detectable_change(error, significance))
    threshold = {"min" if better else "max": 0.0}
    no_loss = GateRule.model_validate({"metric": "loss", "compare": "difference", **threshold})
    loss = compare_items(no_loss, 0.0, pairs, significance, seed)
    assert loss.p_value is not None
    return Comparison(loss.p_value, None, loss.p_value, len(pairs), loss.detectable)


def _best(rule: GateRule, pairs: Pairs, significance: float) -> float:
    """The highest lower bound that these items can give: no item lost, the won items counted."""
    assert pairs.other is not None
    right = int(pairs.other.sum()) if rule.compare == "ratio" else len(pairs)
    if not right:
        return -math.inf
    kept = best_bound(right, significance) + pairs.won / right
    return kept if rule.compare == "ratio" else kept - 1


def _exact_share(rule: GateRule, value: float, pairs: Pairs, significance: float) -> Comparison:
    n, right = len(pairs), int(pairs.candidate.sum())
    limit = min(1.0, max(0.0, rule.limit))
    bounds = binomtest(right, n).proportion_ci(1 - 2 * significance, method="exact")
    bound = float(bounds.low if rule.is_floor else bounds.high)
    worse = "less" if rule.is_floor else "greater"
    p_value = float(binomtest(right, n, limit, alternative=worse).pvalue)
    share = (right + 1) / (n + 2)  # never 0 or 1, whose standard error is 0
    change = detectable_change(math.sqrt(share * (1 - share) / n), significance)
    best = best_bound(n, significance) if rule.is_floor else None
    return Comparison(value, bound, p_value, n, change, None, best)
