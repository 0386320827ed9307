"""The recipe's `costs` block."""

from __future__ import annotations

from layerwright.tasks.contracts.base import Contract, Positive


class CostOptions(Contract):
    """What the time of layers is measured on: contexts, tokens decoded behind each, rows at once.

    ``context_tokens``: those that plans are chosen for, where left out.
    """

    context_tokens: tuple[Positive, ...] = ()
    decode_tokens: Positive = 32
    repeats: Positive = 5
    batch: Positive = 1
