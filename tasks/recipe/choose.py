"""The recipe's `choose` block."""

from __future__ import annotations

from pydantic import Field

from layerwright.tasks.contracts.base import Contract, Positive, Spec


class ChooseOptions(Contract):
    """The selector, and the strategies that it may give to layers.

    ``context_tokens`` is the context length at which memory and time are predicted.
    """

    selector: Spec
    strategies: tuple[Spec, ...] = Field(min_length=1)
    context_tokens: Positive = 8192
