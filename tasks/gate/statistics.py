"""Statistics that scipy lacks: McNemar's test, Holm's correction, power, the best bound."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest, norm

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
