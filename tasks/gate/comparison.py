"""One figure of the candidate against one of another arm, with what its items say of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, multinomial

from layerwright.tasks.contracts.evaluation import Measurement
from layerwright.tasks.gate.pairs import NotShown, Pairs
from layerwright.tasks.gate.statistics import best_bound, detectable_change, mcnemar
from layerwright.tasks.recipe.gate import GateRule
from layerwright.tasks.resampling import RESAMPLES, resample


@dataclass(frozen=True)
class Comparison:
    """What a rule's limit is for, and how sure it is.

    Attributes:
        value: the figure.
        bound: its one-sided bound on the side where the limit would be broken.
        p_value: of the hypothesis that the truth is inside the limit; small where it is not.
        items: how many are behind bound and p-value; 0 where there are none.
        detectable: the smallest change of ``value`` that they would show, 4 times of 5.
        draws: (RESAMPLES,) of the figure, to be averaged over metrics.
        best: no data of so many items could put the bound further.
    """

    value: float
    bound: float | None = None
    p_value: float | None = None
    items: int = 0
    detectable: float | None = None
    draws: np.ndarray | None = None
    best: float | None = None


def point(rule: GateRule, candidate: Measurement, other: Measurement | None) -> float:
    """The figure of a rule from two values.

    Raises:
        NotShown: the other's value gives no evidence, or a ratio of negative values.
    """
    mine = candidate.value
    assert mine is not None  # checked by whoever calls
    if rule.compare == "value":
        return mine
    assert other is not None
    assert other.value is not None
    theirs, name = other.value, rule.arm
    if rule.compare != "ratio":
        if theirs == 0 and candidate.higher_is_better:
            raise NotShown(f"the {name} scores 0: there was nothing to lose, so nothing was shown")
        return mine - theirs
    if theirs == 0 or not math.isfinite(mine / theirs):
        raise NotShown(f"the {name}'s value is {theirs:g}: a ratio to it is no evidence")
    if theirs < 0 or mine < 0:
        raise NotShown("a ratio of negative values means nothing; compare by difference")
    return mine / theirs


def figure_of(rule: GateRule, pairs: Pairs) -> float:
    """The figure of a rule over some items alone (a slice).

    Raises:
        NotShown: as ``point``.
    """

    def measured(values: np.ndarray | None) -> Measurement | None:
        if values is None:
            return None
        whole = float(pairs.whole(values, pairs.weights))
        # the rule's floor or ceiling says which way is better; only that a zero is no evidence
        return Measurement(
            metric="", arm="base", value=whole, unit="", higher_is_better=rule.is_floor
        )

    mine = measured(pairs.candidate)
    assert mine is not None
    return point(rule, mine, measured(pairs.other))


def compare_items(
    rule: GateRule, value: float, pairs: Pairs, significance: float, seed: int
) -> Comparison:
    """Bound, p-value and power of a figure from its items, by the paired bootstrap.

    Of items that are right or wrong, one more is taken to be lost and one more won: a few items
    without any change do not show that there is none (Bonett and Price 2012, doi
    10.3102/1076998611411915, add the same to each kind of change). Their bound is never better than
    what so many items can show if none is lost, and a loss is significant only if McNemar's exact
    test says so too. A share by itself has Clopper and Pearson's bound.
    """
    if rule.compare == "value" and pairs.right_or_wrong:
        return _exact_share(rule, value, pairs, significance)
    draws = (_draw_changes if pairs.right_or_wrong else _draw_items)(rule, pairs, seed)
    bound = float(np.quantile(draws, significance if rule.is_floor else 1 - significance))
    p_value, best = beyond(draws, rule), None
    if pairs.right_or_wrong:
        lost, won = (pairs.lost, pairs.won) if rule.is_floor else (pairs.won, pairs.lost)
        p_value = max(p_value, mcnemar(lost, won))
        if rule.is_floor:
            best = _best(rule, pairs, significance)
            bound = min(bound, best)
    return Comparison(
        value,
        bound if math.isfinite(bound) else None,
        p_value,
        len(pairs),
        _detectable(draws, significance),
        draws,
        best,
    )


def _draw_items(rule: GateRule, pairs: Pairs, seed: int) -> np.ndarray:
    """(RESAMPLES,) of the rule's figure, whole items drawn with their results in both arms."""
    arrays = [pairs.candidate, pairs.weights, *([] if pairs.other is None else [pairs.other])]

    def statistic(
        c: np.ndarray, w: np.ndarray, o: np.ndarray | None = None, axis: int = -1
    ) -> np.ndarray:
        mine = pairs.whole(c, w, axis)
        return mine if o is None else _figure(rule, mine, pairs.whole(o, w, axis))

    return resample(arrays, statistic, seed).bootstrap_distribution


def _draw_changes(rule: GateRule, pairs: Pairs, seed: int) -> np.ndarray:
    """As ``_draw_items`` for items that are right or wrong, with one lost and one won more.

    Drawing items is drawing how many of them are of each of the four kinds: a multinomial.
    """
    assert pairs.other is not None
    right = int((pairs.candidate * pairs.other).sum())
    lost, won = pairs.lost + 1, pairs.won + 1
    kinds = np.array([right, lost, won, len(pairs) + 2 - right - lost - won])
    drawn = multinomial.rvs(
        kinds.sum(), kinds / kinds.sum(), RESAMPLES, np.random.default_rng(seed)
    )
    kept, gone, gained, _ = drawn.T / kinds.sum()
    return _figure(rule, kept + gained, kept + gone)


def _figure(rule: GateRule, mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    if rule.compare != "ratio":
        return mine - theirs
    worst = 0.0 if rule.is_floor else np.inf  # 0/0: a draw in which nothing was right
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(mine / theirs, nan=worst, posinf=np.inf, neginf=-np.inf)


def _detectable(draws: np.ndarray, significance: float) -> float | None:
    with np.errstate(invalid="ignore"):
        change = detectable_change(float(np.std(draws, ddof=1)), significance)
    return change if math.isfinite(change) else None


def beyond(draws: np.ndarray, rule: GateRule) -> float:
    """The share of draws inside the limit: the bootstrap's p-value that the truth is inside."""
    inside = draws >= rule.limit if rule.is_floor else draws <= rule.limit
    return float((1 + inside.sum()) / (1 + len(draws)))


def mean_of(rule: GateRule, parts: Sequence[Comparison], significance: float) -> Comparison:
    """The mean of one figure over several metrics, whose items are independent of each other."""
    value = float(np.mean([part.value for part in parts]))
    some = [part.draws for part in parts if part.draws is not None]
    if len(some) < len(parts):
        return Comparison(value, items=min(part.items for part in parts))
    draws = np.mean(some, axis=0)
    level = significance if rule.is_floor else 1 - significance
    bound = float(np.quantile(draws, level))
    caps = [part.best for part in parts if part.best is not None]
    best = float(np.mean(caps)) if len(caps) == len(parts) else None
    return Comparison(
        value,
        min(bound, best) if best is not None else bound,
        beyond(draws, rule),
        sum(part.items for part in parts),
        _detectable(draws, significance),
        draws,
        best,
    )


def chance_of_loss(
    candidate: Measurement, pairs: Pairs, significance: float, seed: int
) -> Comparison:
    """The probability that a loss as large as the one seen comes by chance, of equal arms.

    McNemar's exact test where items are right or wrong, else the paired bootstrap's.
    """
    better = candidate.higher_is_better
    if pairs.right_or_wrong:
        n, lost, won = len(pairs), pairs.lost, pairs.won
        p_value = mcnemar(lost, won) if better else mcnemar(won, lost)
        # of the difference, with one more of each change: never 0 (Bonett and Price 2012)
        error = math.sqrt(lost + won + 2 - (lost - won) ** 2 / n) / n
        return Comparison(p_value, None, p_value, n, detectable_change(error, significance))
    no_loss = GateRule(
        metric=candidate.metric,
        compare="difference",
        **{"min" if better else "max": 0.0},  # type: ignore[arg-type]
    )
    found = compare_items(no_loss, 0.0, pairs, significance, seed)
    assert found.p_value is not None
    return Comparison(found.p_value, None, found.p_value, len(pairs), found.detectable)


def _best(rule: GateRule, pairs: Pairs, significance: float) -> float:
    """The highest lower bound that the items can give: nothing lost, what was won counted."""
    assert pairs.other is not None
    right = int(pairs.other.sum()) if rule.compare == "ratio" else len(pairs)
    if not right:
        return -math.inf
    kept = best_bound(right, significance) + pairs.won / right
    return kept if rule.compare == "ratio" else kept - 1


def _exact_share(rule: GateRule, value: float, pairs: Pairs, significance: float) -> Comparison:
    n, right = len(pairs), int(pairs.candidate.sum())
    limit = min(1.0, max(0.0, rule.limit))
    worse = "less" if rule.is_floor else "greater"
    bounds = binomtest(right, n).proportion_ci(1 - 2 * significance, method="exact")
    share = (right + 1) / (n + 2)  # never 0 or 1: those would have no spread
    return Comparison(
        value,
        float(bounds.low if rule.is_floor else bounds.high),
        float(binomtest(right, n, limit, alternative=worse).pvalue),
        n,
        detectable_change(math.sqrt(share * (1 - share) / n), significance),
        None,
        best_bound(n, significance) if rule.is_floor else None,
    )
