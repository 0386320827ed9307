"""Compute from which prompt length a candidate is faster, and the money that it saves."""

import math
from collections.abc import Iterable, Mapping

from layerwright.tasks.contracts.evaluation import Measurement
from layerwright.tasks.contracts.returns import (
    CostAndReturn,
    Crossover,
    Pair,
    Price,
    Timed,
    WorkloadCost,
)
from layerwright.tasks.contracts.workload import Workload
from layerwright.tasks.recipe.compute import Compute
from layerwright.tasks.steps import placed_steps

TIMED: dict[str, Timed] = {
    "prefill_ms": "prefill",
    "decode_tokens_per_s": "decode",
    "latency_p50_ms": "request",
}


def crossovers(measurements: Iterable[Measurement]) -> tuple[Crossover, ...]:
    """The crossovers of prefill, decoding and whole requests, at each measured batch size."""
    pairs = sorted(times(measurements).items(), key=lambda item: item[0][1].prompt_tokens)
    groups: dict[tuple[Timed, int, int], list[tuple[int, float]]] = {}
    for (timed, load), pair in pairs:
        groups.setdefault((timed, load.new_tokens, load.batch), []).append(
            (load.prompt_tokens, pair.candidate / pair.base)
        )
    return tuple(
        Crossover(
            timed=timed,
            new_tokens=new_tokens,
            batch=batch,
            measured=tuple(measured),
            tokens=crossover_tokens(measured),
        )
        for (timed, new_tokens, batch), measured in groups.items()
    )


def crossover_tokens(measured: list[tuple[int, float]]) -> float | None:
    """``Crossover.tokens`` of at least one (prompt tokens, ratio of times), ascending by tokens."""
    last = max((index for index, (_, ratio) in enumerate(measured) if ratio >= 1), default=-1)
    if last == -1:
        return float(measured[0][0])
    if last == len(measured) - 1:
        return None
    (short, above), (long, below) = measured[last], measured[last + 1]
    share = (above - 1) / (above - below)
    return math.exp(math.log(short) + share * (math.log(long) - math.log(short)))


def times(measurements: Iterable[Measurement]) -> dict[tuple[Timed, Workload], Pair]:
    """The seconds that base and candidate need per prefill, new token and request."""
    values: dict[tuple[Timed, Workload], dict[str, float]] = {}
    for m in measurements:
        family, _, subject = m.metric.partition(".")
        load = Workload.parse(subject)
        timed = TIMED.get(family)
        if timed and load and m.value:  # 0 means that the clock could not measure it
            seconds = 1 / m.value if timed == "decode" else m.value / 1e3
            values.setdefault((timed, load), {})[m.arm] = seconds
    return {
        key: Pair(base=arms["base"], candidate=arms["candidate"])
        for key, arms in values.items()
        if {"base", "candidate"} <= set(arms)
    }


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
