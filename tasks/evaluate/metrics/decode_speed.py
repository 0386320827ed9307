"""How fast each arm reads a prompt and writes behind it, and how much memory that takes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import product
from typing import Annotated, ClassVar

from pydantic import Field

from layerwright.tasks.contracts.evaluation import Arm
from layerwright.tasks.contracts.workload import Workload
from layerwright.tasks.evaluate.arms import Arms
from layerwright.tasks.evaluate.base import Figure, Metric, measured
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.timing.memory import weight_bytes
from layerwright.tasks.timing.speed import Speed, interleaved_speeds

Count = Annotated[int, Field(gt=0)]
FAMILIES = ("prefill_ms", "first_token_ms", "decode_tokens_per_s", "peak_memory_bytes")
LATENCIES = ("latency_p50_ms", "latency_p95_ms")  # of requests that write `new_tokens`
TAIL = 95  # percent


class DecodeSpeed(Metric):
    """Requests at every length and batch size: k rows read n tokens at once, then write N each.

    ``prefill_ms.<n>``: time to read; ``first_token_ms.<n>``: until a token is chosen;
    ``decode_tokens_per_s.<n>``: tokens behind the first, of all rows together, greedily, one by
    one; ``latency_p50_ms.<n>+<N>`` and ``latency_p95_ms.<n>+<N>``: the whole request;
    ``peak_memory_bytes.<n>``: the weights and what the request takes at its peak. All end in
    ``.b<k>`` where k is not 1.

    The arms take turns, each repeat with a prefill and a cache of its own: a slow minute of the
    machine hits all of them, and no repeat starts with a longer context. A first round is not
    counted; it measures memory. Values are medians, low and high the extremes, not a confidence
    interval. The 95th percentile is the smallest time that 95 % of the repeats do not exceed.
    """

    name: ClassVar[str] = "decode_speed"

    context_tokens: Annotated[tuple[Count, ...], Field(min_length=1)] = (512, 2048)
    batches: Annotated[tuple[Count, ...], Field(min_length=1)] = (1,)
    new_tokens: Annotated[int, Field(ge=2)] = 32
    repeats: Count = 3

    def workloads(self) -> list[Workload]:
        pairs = product(self.context_tokens, self.batches)
        return [Workload(tokens, self.new_tokens, batch) for tokens, batch in pairs]

    def names(self) -> tuple[str, ...]:
        return tuple(_name(family, load) for load in self.workloads()
                     for family in (*FAMILIES, *LATENCIES))  # fmt: skip

    def estimate_tokens(self) -> int:
        rounds = self.repeats + 1
        return rounds * sum(w.batch * (w.prompt_tokens + w.new_tokens) for w in self.workloads())

    def measure(self, arms: Arms) -> Iterator[Figure]:
        models = {arm: arms.model(arm) for arm in arms.names}
        for load in self.workloads():
            rows = f", {load.batch} rows" if load.batch > 1 else ""
            found = interleaved_speeds(
                models,
                load.prompt_tokens,
                decode_tokens=load.new_tokens - 1,
                repeats=self.repeats,
                batch=load.batch,
                track=partial(arms.track, what=f"speed at {load.prompt_tokens:,} tokens{rows}"),
            )
            yield from _figures(load, models, found, arms.device)


def _name(family: str, load: Workload) -> str:
    return f"{family}.{load if family in LATENCIES else load._replace(new_tokens=0)}"


def _figures(
    load: Workload,
    models: Mapping[Arm, HybridForCausalLM],
    found: Mapping[str, Speed],
    device: str,
) -> Iterator[Figure]:
    """All figures of one workload, arm by arm."""
    for arm, model in models.items():
        speed = found[arm]
        where = f"{str(model.dtype).removeprefix('torch.')} on {device}"
        requests_ms = [s * 1e3 for s in speed.request_seconds]
        for family, samples in (
            ("prefill_ms", [s * 1e3 for s in speed.prefill_seconds]),
            ("first_token_ms", [s * 1e3 for s in speed.first_token_seconds]),
            ("decode_tokens_per_s", [load.batch / s for s in speed.decode_seconds_per_token]),
            ("latency_p50_ms", requests_ms),
        ):
            is_rate = family == "decode_tokens_per_s"
            yield measured(
                _name(family, load),
                arm,
                statistics.median(samples),
                unit="tokens/s" if is_rate else "ms",
                higher_is_better=is_rate,
                interval=(min(samples), max(samples)),
                count=len(samples),
                detail=f"median of {len(samples)} repeats, low and high the extremes; {where}",
            )
        yield measured(
            _name("latency_p95_ms", load),
            arm,
            sorted(requests_ms)[rank(len(requests_ms), TAIL) - 1],
            unit="ms",
            higher_is_better=False,
            count=len(requests_ms),
            detail=f"of {len(requests_ms)} requests"
            + (", the slowest" if rank(len(requests_ms), TAIL) == len(requests_ms) else "")
            + f"; {where}",
        )
        yield _memory(load, arm, weight_bytes(model), speed.peak_bytes, where)


def rank(samples: int, percent: int) -> int:
    """Counted from 1, the smallest that at least ``percent`` of the samples do not exceed."""
    return -(-percent * samples // 100)


def _memory(load: Workload, arm: Arm, weights: int | None, request: int, where: str) -> Figure:
    return measured(
        _name("peak_memory_bytes", load),
        arm,
        math.nan if weights is None else weights + request,
        unit="bytes",
        higher_is_better=False,
        count=1,
        detail=f"weights and {request:,} bytes for the request at its peak, as PyTorch's allocator "
        f"counts; {where}",
        not_finite="layers are read in turn, as compute.memory says",
    )
