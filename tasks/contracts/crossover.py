"""From which prompt length a candidate is faster than its base."""

from __future__ import annotations

from typing import Literal

from layerwright.tasks.contracts.base import Contract

Timed = Literal["prefill", "decode", "request"]


class Pair(Contract):
    """The same figure of both arms, lower is better."""

    base: float
    candidate: float

    @property
    def saving(self) -> float:
        """Negative where the candidate is dearer."""
        return self.base - self.candidate


class Crossover(Contract):
    """From which prompt length on the candidate is faster.

    ``measured``: the candidate's median time over the base's by prompt length, ascending.
    ``tokens``: the smallest length from which on the ratio stays below 1, between two measured
    lengths on the straight line over the logarithm of the length. Where the shortest measured is
    below 1 already it is that one, as nothing shorter was measured; None where the longest is not.
    """

    timed: Timed
    new_tokens: int = 0
    batch: int = 1
    measured: tuple[tuple[int, float], ...]
    tokens: float | None

    @property
    def from_the_shortest(self) -> bool:
        return self.tokens == self.measured[0][0]
