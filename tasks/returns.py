"""Cost and return of a conversion: money per million tokens, and when it has paid for itself.

Pure functions of an evaluation, a price, and the time that the run's steps took.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated

from pydantic import Field

from tasks.compute import STEPS, Compute
from tasks.contracts import Contract, Measurement, Number
from tasks.crossover import Pair, Timed, times
from tasks.workload import Workload

MILLION = 1_000_000
DEVICE_STEPS = tuple(step for step in STEPS if step not in ("gate", "register"))


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


def workload_costs(
    measurements: Iterable[Measurement], price: Price, conversion: float | None = None
) -> tuple[WorkloadCost, ...]:
    """Every workload whose prefill, decoding and requests were measured, shortest prompt first.

    Args:
        conversion: what it cost; without it there is no break-even.
    """
    found = times(measurements)

    def per_million(timed: Timed, load: Workload, tokens: int) -> Pair | None:
        pair = found.get((timed, load))
        return pair and Pair(
            base=price.of(pair.base) * MILLION / tokens,
            candidate=price.of(pair.candidate) * MILLION / tokens,
        )

    costs = []
    for load in sorted(load for timed, load in found if timed == "request"):
        alone = load._replace(new_tokens=0)
        prefill = per_million("prefill", alone, load.prompt_tokens * load.batch)
        decode = per_million("decode", alone, 1)
        request = per_million("request", load, (load.prompt_tokens + load.new_tokens) * load.batch)
        if prefill and decode and request:
            costs.append(
                WorkloadCost(
                    **load._asdict(),
                    prefill=prefill,
                    decode=decode,
                    request=request,
                    break_even_tokens=MILLION * conversion / request.saving
                    if conversion is not None and request.saving > 0
                    else None,
                )
            )
    return tuple(costs)


def cost_and_return(
    measurements: Iterable[Measurement],
    price: Price,
    device: str,
    spent: Mapping[str, float],
    recorded: Mapping[str, float],
    cached: Iterable[str],
    compute: Compute,
) -> CostAndReturn:
    """What the conversion cost, and what it gives back.

    Args:
        spent: seconds of each step in this run; next to none where the cache answered.
        recorded: seconds that a step's own result says it took when it ran.
        cached: steps that the cache answered.
        compute: how many devices each step works on.
    """
    seconds = {
        step: max(spent.get(step, 0.0), recorded.get(step, 0.0)) * compute.of(step).processes
        for step in DEVICE_STEPS
        if step in spent
    }
    conversion = price.of(sum(seconds.values()))
    return CostAndReturn(
        price=price,
        device=device,
        device_seconds=seconds,
        untimed=tuple(step for step in cached if step in seconds and step not in recorded),
        conversion=conversion,
        workloads=workload_costs(measurements, price, conversion),
    )
