"""Tests on paired items that scipy has not by these names: McNemar's, and Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest, norm

POWER = 0.8


def mcnemar(lost: int, won: int) -> float:
    """Exact one-sided p-value that more items were lost than chance loses.

    p = P[Bin(lost + won, 1/2) >= lost]: under equal quality each item that changed was as likely
    won as lost (McNemar 1947, exact form).
    """
    if lost + won == 0:
        return 1.0
    return float(binomtest(lost, lost + won, 0.5, alternative="greater").pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order given: rejecting those below a holds the family-wise error
    rate at a, whatever the dependence between the tests (Holm 1979).

    p~_(i) = max over j <= i of min(1, (m - j + 1) p_(j)), with p_(1) <= ... <= p_(m).
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    steps = np.minimum(1.0, p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(steps)
    return adjusted.tolist()


def detectable_change(standard_error: float, significance: float) -> float:
    """The true change that a one-sided test at ``significance`` finds with 80 % probability.

    (z_{1-a} + z_{0.8}) SE, the usual normal approximation.
    """
    return float((norm.ppf(1 - significance) + norm.ppf(POWER)) * standard_error)


def best_bound(items: int, significance: float) -> float:
    """The one-sided lower bound of a share of which all ``items`` items are right: a^(1/n).

    Clopper and Pearson's interval at n of n: no data can show more with so few items.
    """
    return float(significance ** (1 / items)) if items else 0.0
