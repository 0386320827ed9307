"""The recipe's `costs` block."""

from layerwright.tasks.contracts.base import Contract, Positive


class CostOptions(Contract):
    """The workloads on which layers are timed."""

    # context lengths; by default those of the recipe's ``choose`` blocks
    context_tokens: tuple[Positive, ...] = ()
    decode_tokens: Positive = 32  # tokens generated after each context
    repeats: Positive = 5  # repetitions of each timing; the median counts
    batch: Positive = 1  # rows per pass
