"""From which prompt length on a candidate is faster than its base, by what was measured."""

from __future__ import annotations

import math
from collections.abc import Iterable

from layerwright.tasks.contracts.crossover import Crossover, Pair, Timed
from layerwright.tasks.contracts.evaluation import Measurement
from layerwright.tasks.contracts.workload import Workload

FAMILIES: dict[Timed, str] = {
    "prefill": "prefill_ms",
    "decode": "decode_tokens_per_s",
    "request": "latency_p50_ms",
}


def crossovers(measurements: Iterable[Measurement]) -> tuple[Crossover, ...]:
    """For reading, writing and whole requests at each batch size that was measured."""
    found = times(measurements)
    groups: dict[tuple[Timed, int, int], list[tuple[int, float]]] = {}
    for (timed, load), pair in sorted(found.items(), key=lambda item: item[0][1].prompt_tokens):
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
    """See ``Crossover``. ``measured``: (prompt tokens, ratio of times), ascending, at least one."""
    slower = [place for place, (_, ratio) in enumerate(measured) if ratio >= 1]
    if not slower:
        return float(measured[0][0])
    last = slower[-1]
    if last == len(measured) - 1:
        return None
    (short, above), (long, below) = measured[last], measured[last + 1]
    share = (above - 1) / (above - below)
    return math.exp(math.log(short) + share * (math.log(long) - math.log(short)))


def times(measurements: Iterable[Measurement]) -> dict[tuple[Timed, Workload], Pair]:
    """Seconds that base and candidate take: a prefill, a new token, a request."""
    values: dict[tuple[Timed, Workload], dict[str, float]] = {}
    for m in measurements:
        family, _, subject = m.metric.partition(".")
        load = Workload.parse(subject)
        timed = next((timed for timed, name in FAMILIES.items() if name == family), None)
        if timed and load and m.value:  # a time of 0 was not measured
            seconds = 1 / m.value if timed == "decode" else m.value / 1e3
            values.setdefault((timed, load), {})[m.arm] = seconds
    return {
        key: Pair(base=arms["base"], candidate=arms["candidate"])
        for key, arms in values.items()
        if {"base", "candidate"} <= set(arms)
    }
