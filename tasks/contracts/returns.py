"""What a conversion costs and saves: its price, money per workload, and the crossover length."""

from typing import Annotated, Literal

from pydantic import Field

from layerwright.tasks.contracts.base import Contract, Number

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
    # (prompt length, candidate's time over the base's), ascending
    measured: tuple[tuple[int, float], ...]
    # the shortest length from which the ratio stays below 1, interpolated linearly over the
    # logarithm of the length. It is the shortest measured length if all ratios are below 1, and
    # None if the ratio at the longest is not.
    tokens: float | None

    @property
    def from_the_shortest(self) -> bool:
        """The candidate is faster at every measured length."""
        return self.tokens == self.measured[0][0]


class Price(Contract):
    """The price of one device per hour."""

    device_hour: Annotated[Number, Field(gt=0)]
    currency: str = Field(default="USD", pattern=r"^[A-Z]{3}$")

    def of(self, device_seconds: float) -> float:
        return device_seconds * self.device_hour / 3600


class WorkloadCost(Contract):
    """Money per million tokens at one length and batch size, from measured medians."""

    prompt_tokens: int
    new_tokens: int
    batch: int
    prefill: Pair  # per million prompt tokens
    decode: Pair  # per million new tokens
    request: Pair  # per million tokens of whole requests (prompt and answer)
    break_even_tokens: float | None = None  # until the savings pay the conversion; None if never


class CostAndReturn(Contract):
    """The cost of a conversion and its return per workload."""

    price: Price
    device: str
    device_seconds: dict[str, float]  # by step
    untimed: tuple[str, ...] = ()  # cached steps of unknown duration; not part of the cost
    conversion: float  # in the price's currency
    workloads: tuple[WorkloadCost, ...]
