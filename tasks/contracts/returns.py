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
    """Money per million tokens at one length and batch size, from measured medians.

    Attributes:
        prefill: per million prompt tokens.
        decode: per million new tokens.
        request: per million tokens of whole requests (prompt and answer).
        break_even_tokens: tokens of such requests after which the savings equal the conversion's
            cost; None if the candidate saves nothing.
    """

    prompt_tokens: int
    new_tokens: int
    batch: int
    prefill: Pair
    decode: Pair
    request: Pair
    break_even_tokens: float | None = None


class CostAndReturn(Contract):
    """The cost of a conversion and its return per workload.

    Attributes:
        device_seconds: by step.
        untimed: cached steps without a recorded duration; the cost does not include them.
        conversion: in the price's currency.
    """

    price: Price
    device: str
    device_seconds: dict[str, float]
    untimed: tuple[str, ...] = ()
    conversion: float
    workloads: tuple[WorkloadCost, ...]
