"""Prefill time, decode speed, latency and peak memory of each arm."""

import math
import statistics
from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Annotated, Any

from pydantic import Field

from layerwright.tasks.contracts.evaluation import Arm
from layerwright.tasks.contracts.workload import Workload
from layerwright.tasks.evaluate.arms import Arms
from layerwright.tasks.evaluate.base import Count, Counts, Figure, Metric, measured, shown
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.timing.speed import Speed, interleaved_speeds, weight_bytes

FAMILIES = {
    "peak_memory_bytes": ("Peak memory", "weights and one batch of requests; lower is better"),
    "prefill_ms": ("Prefill", "ms to read the prompt; lower is better"),
    "first_token_ms": ("Time to first token", "ms; lower is better"),
    "decode_tokens_per_s": ("Decoding", "tokens/s over all rows; higher is better"),
    "latency_p50_ms": ("Request latency, median", "ms for the whole request; lower is better"),
    "latency_p95_ms": (
        "Request latency, 95th percentile",
        "ms for the whole request; lower is better",
    ),
}
TAIL = 95  # percent


class DecodeSpeed(Metric):
    """Time requests of every length and batch size.

    A request prefills n tokens in each of k rows, then decodes N tokens in each, greedily:

    - ``prefill_ms.<n>``: time of the prefill.
    - ``first_token_ms.<n>``: time to the first token.
    - ``decode_tokens_per_s.<n>``: tokens after the first, of all rows together.
    - ``latency_p50_ms.<n>+<N>`` and ``latency_p95_ms.<n>+<N>``: time of the whole request.
    - ``peak_memory_bytes.<n>``: the weights plus the peak memory of the request.

    Names end in ``.b<k>`` if k is not 1.

    The arms take turns, so that a slow minute of the machine affects all of them. Every repeat has
    its own prefill and cache, so that all repeats have the same context length. The first round is
    a warm-up; it measures memory. Values are medians; low and high are the extremes, not a
    confidence interval. The 95th percentile is the smallest time that at least 95 % of the repeats
    do not exceed.
    """

    name = "decode_speed"
    presentation = {family: shown(*said, "by_length") for family, said in FAMILIES.items()}

    context_tokens: Counts = (512, 2048)
    batches: Counts = (1,)
    new_tokens: Annotated[int, Field(ge=2)] = 32
    repeats: Count = 3

    def workloads(self) -> list[Workload]:
        pairs = product(self.context_tokens, self.batches)
        return [Workload(tokens, self.new_tokens, batch) for tokens, batch in pairs]

    def names(self) -> tuple[str, ...]:
        return tuple(_name(family, load) for load in self.workloads() for family in FAMILIES)

    def estimate_tokens(self) -> int:
        rounds = self.repeats + 1
        return rounds * sum(w.batch * (w.prompt_tokens + w.new_tokens) for w in self.workloads())

    def measure(self, arms: Arms) -> Iterator[Figure]:
        models: dict[str, HybridForCausalLM] = {arm: arms.model(arm) for arm in arms.names}
        for load in self.workloads():
            rows = f", {load.batch} rows" if load.batch > 1 else ""
            speeds = interleaved_speeds(
                models,
                load.prompt_tokens,
                decode_tokens=load.new_tokens - 1,
                repeats=self.repeats,
                batch=load.batch,
                track=partial(arms.track, what=f"speed at {load.prompt_tokens:,} tokens{rows}"),
            )
            for arm in arms.names:
                yield from _figures(load, arm, models[arm], speeds[arm], arms.device)


def _name(family: str, load: Workload) -> str:
    is_request = family.startswith("latency")  # its name has the number of generated tokens
    return f"{family}.{load if is_request else load._replace(new_tokens=0)}"


def _figures(
    load: Workload, arm: Arm, model: HybridForCausalLM, speed: Speed, device: str
) -> Iterator[Figure]:
    """Yield all figures of a workload for an arm."""
    where = f"{str(model.dtype).removeprefix('torch.')} on {device}"
    repeats = len(speed.request_seconds)
    for family, unit, samples in (
        ("prefill_ms", "ms", [s * 1e3 for s in speed.prefill_seconds]),
        ("first_token_ms", "ms", [s * 1e3 for s in speed.first_token_seconds]),
        (
            "decode_tokens_per_s",
            "tokens/s",
            [load.batch / s for s in speed.decode_seconds_per_token],
        ),
        ("latency_p50_ms", "ms", requests_ms := [s * 1e3 for s in speed.request_seconds]),
    ):
        median, better = statistics.median(samples), unit == "tokens/s"
        detail = f"median of {repeats} repeats, low and high the extremes; {where}"
        options: dict[str, Any] = {"interval": (min(samples), max(samples)), "count": repeats}
        options |= {"higher_is_better": better, "detail": detail}
        yield measured(_name(family, load), arm, median, unit, **options)
    tail, name = rank(repeats, TAIL), _name("latency_p95_ms", load)
    detail = f"of {repeats} requests{', the slowest' if tail == repeats else ''}; {where}"
    slow = sorted(requests_ms)[tail - 1]
    yield measured(name, arm, slow, "ms", count=repeats, detail=detail)
    weights, name = weight_bytes(model), _name("peak_memory_bytes", load)
    total = math.nan if weights is None else weights + speed.peak_bytes
    extra = f"{speed.peak_bytes:,} bytes, the request's peak in PyTorch's allocator"
    detail, why = f"weights plus {extra}; {where}", "compute.memory makes layers load in turn"
    not_finite = f"not measured, because {why}"
    yield measured(name, arm, total, "bytes", count=1, detail=detail, not_finite=not_finite)


def rank(samples: int, percent: int) -> int:
    """Rank, from 1, of the smallest sample that at least ``percent`` of them do not exceed."""
    return -(-percent * samples // 100)
