"""Compute the cost of a conversion, the money per million tokens, and the break-even."""

from collections.abc import Iterable, Mapping

from layerwright.tasks.contracts.evaluation import Measurement
from layerwright.tasks.contracts.returns import CostAndReturn, Pair, Price, Timed, WorkloadCost
from layerwright.tasks.contracts.workload import Workload
from layerwright.tasks.recipe.compute import Compute
from layerwright.tasks.returns.crossover import times
from layerwright.tasks.steps import placed_steps

MILLION = 1_000_000


def workload_costs(
    measurements: Iterable[Measurement], price: Price, conversion: float | None = None
) -> tuple[WorkloadCost, ...]:
    """The costs of each workload with measured prefill, decoding and requests, shortest first.

    Args:
        conversion: the cost of the conversion; without it there is no break-even.
    """
    measured = times(measurements)

    def per_million(timed: Timed, load: Workload, tokens: int) -> Pair | None:
        pair = measured.get((timed, load))
        return pair and Pair(
            base=price.of(pair.base) * MILLION / tokens,
            candidate=price.of(pair.candidate) * MILLION / tokens,
        )

    costs = []
    for load in sorted(load for timed, load in measured if timed == "request"):
        prompt = load._replace(new_tokens=0)
        prefill = per_million("prefill", prompt, load.prompt_tokens * load.batch)
        decode = per_million("decode", prompt, 1)
        request = per_million("request", load, (load.prompt_tokens + load.new_tokens) * load.batch)
        if prefill and decode and request:
            even = None
            if conversion is not None and request.saving > 0:
                even = MILLION * conversion / request.saving
            pairs = {"prefill": prefill, "decode": decode, "request": request}
            costs.append(WorkloadCost(**load._asdict(), **pairs, break_even_tokens=even))
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
    """The cost of the conversion and its return per workload.

    Args:
        spent: seconds of each step in this run; almost none for cached steps.
        recorded: seconds of each step that its result records from when it ran.
        cached: steps whose results came from the cache.
        compute: gives the number of devices that each step uses.
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
