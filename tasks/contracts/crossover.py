"""The crossover: the prompt length from which the candidate is faster than the base."""

from __future__ import annotations

from typing import Literal

from layerwright.tasks.contracts.base import Contract

Timed = Literal["prefill", "decode", "request"]


class Pair(Contract):
    """The same figure of base and candidate; lower is better."""

    base: float
    candidate: float

    @property
    def saving(self) -> float:
        """Base minus candidate; negative if the candidate costs more."""
        return self.base - self.candidate


class Crossover(Contract):
    """The prompt length from which the candidate is faster than the base."""

    timed: Timed
    new_tokens: int = 0
    batch: int = 1
    # (prompt length, candidate's median time over the base's), ascending by length
    measured: tuple[tuple[int, float], ...]
    # the shortest length from which the ratio stays below 1, interpolated linearly over the
    # logarithm of the length. It is the shortest measured length if all ratios are below 1, and
    # None if the ratio at the longest is not.
    tokens: float | None

    @property
    def from_the_shortest(self) -> bool:
        """The candidate is faster at every measured length."""
        return self.tokens == self.measured[0][0]
