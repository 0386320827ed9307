"""The cost of a conversion and its return, in money."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from layerwright.tasks.contracts.base import Contract, Number
from layerwright.tasks.contracts.crossover import Pair


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
    # tokens of such requests after which the savings equal the conversion's cost; None if the
    # candidate saves nothing
    break_even_tokens: float | None = None


class CostAndReturn(Contract):
    """The cost of a conversion and its return per workload."""

    price: Price
    device: str
    device_seconds: dict[str, float]  # by step
    # cached steps without a recorded duration; the cost does not include them
    untimed: tuple[str, ...] = ()
    conversion: float  # in the price's currency
    workloads: tuple[WorkloadCost, ...]
