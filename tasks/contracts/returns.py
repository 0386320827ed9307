"""Cost and return of a conversion, in money."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from layerwright.tasks.contracts.base import Contract, Number
from layerwright.tasks.contracts.crossover import Pair


class Price(Contract):
    """What one device costs for an hour."""

    device_hour: Annotated[Number, Field(gt=0)]
    currency: str = Field(default="USD", pattern=r"^[A-Z]{3}$")

    def of(self, device_seconds: float) -> float:
        return device_seconds * self.device_hour / 3600


class WorkloadCost(Contract):
    """Money per million tokens at one length and batch size, from measured medians.

    ``prefill`` per million tokens of prompts, ``decode`` per million new tokens, ``request`` per
    million tokens of whole requests, prompts and answers together. ``break_even_tokens`` of such
    requests pay for the conversion; None where the candidate saves nothing.
    """

    prompt_tokens: int
    new_tokens: int
    batch: int
    prefill: Pair
    decode: Pair
    request: Pair
    break_even_tokens: float | None = None


class CostAndReturn(Contract):
    """What a conversion cost, and what it gives back by workload.

    ``conversion`` is in the price's currency; ``device_seconds`` by step. ``untimed`` are steps
    answered from the cache of which no record says how long they took: they are not counted.
    """

    price: Price
    device: str
    device_seconds: dict[str, float]
    untimed: tuple[str, ...] = ()
    conversion: float
    workloads: tuple[WorkloadCost, ...]
