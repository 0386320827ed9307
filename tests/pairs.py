"""Cases in which every two values of two factors meet, instead of the product of all factors.

For factors that do not act on each other beyond pairs. Factors that do are given as one: the
product of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, product
from typing import Any


def pairwise(*factors: Sequence[Any]) -> list[tuple[Any, ...]]:
    """The same cases for the same factors: always the next one with the most pairs still missing.

    A value that is a tuple is spread, so the parts of a combined factor are arguments of their own.
    """
    rows = list(product(*(range(len(factor)) for factor in factors)))
    pairs = {row: set(combinations(enumerate(row), 2)) for row in rows}
    missing = set().union(*pairs.values())
    chosen = []
    while missing:
        best = max(rows, key=lambda row: len(pairs[row] & missing))
        missing -= pairs[best]
        chosen.append(best)
    return [
        tuple(part for i, place in enumerate(row) for part in spread(factors[i][place]))
        for row in chosen
    ]


def spread(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)
