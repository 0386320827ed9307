"""The recipe's `choose` block."""

from pydantic import Field

from layerwright.tasks.contracts.base import Contract, Positive
from layerwright.tasks.recipe.component_fields import Selector, Strategy


class ChooseOptions(Contract):
    """The selector, and the strategies that it may give to layers."""

    selector: Selector
    strategies: tuple[Strategy, ...] = Field(min_length=1)
    context_tokens: Positive = 8192  # at which memory and time are predicted
