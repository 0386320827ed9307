"""Compute from measurements from which prompt length a candidate is faster than its base."""

import math
from collections.abc import Iterable

from layerwright.tasks.contracts.evaluation import Measurement
from layerwright.tasks.contracts.returns import Crossover, Pair, Timed
from layerwright.tasks.contracts.workload import Workload

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
