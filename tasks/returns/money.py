"""Cost and return of a conversion: money per million tokens, and when it has paid for itself.

Pure functions of an evaluation, a price, and the time that the run's steps took.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from layerwright.tasks.contracts.crossover import Pair, Timed
from layerwright.tasks.contracts.evaluation import Measurement
from layerwright.tasks.contracts.returns import CostAndReturn, Price, WorkloadCost
from layerwright.tasks.contracts.workload import Workload
from layerwright.tasks.recipe.compute import Compute
from layerwright.tasks.returns.crossover import times
from layerwright.tasks.steps import placed_steps

MILLION = 1_000_000


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
        for step in placed_steps()
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
