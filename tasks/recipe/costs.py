"""The recipe's `costs` block."""

from __future__ import annotations

from layerwright.tasks.contracts.base import Contract, Positive


class CostOptions(Contract):
    """The workloads on which layers are timed.

    Attributes:
        context_tokens: context lengths; by default those of the recipe's ``choose`` blocks.
        decode_tokens: tokens generated after each context.
        repeats: repetitions of each timing; the median counts.
        batch: rows per pass.
    """

    context_tokens: tuple[Positive, ...] = ()
    decode_tokens: Positive = 32
    repeats: Positive = 5
    batch: Positive = 1
