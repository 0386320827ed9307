"""The recipe's `profile` block."""

from layerwright.tasks.contracts.base import Contract, Positive
from layerwright.tasks.recipe.component_fields import Profiler


class ProfileOptions(Contract):
    """The rows on which the profilers measure the base's layers."""

    text: str
    rows: Positive = 8
    row_tokens: Positive = 512
    profilers: tuple[Profiler, ...]
