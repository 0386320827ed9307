"""How fast each arm reads a prompt and writes behind it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from tasks.contracts import Arm
from tasks.evaluate.arms import Arms
from tasks.evaluate.base import Figure, Metric, measured
from tasks.evaluate.kv_cache import prefill
from tasks.hybrid.modeling import HybridForCausalLM

Length = Annotated[int, Field(gt=0)]


class DecodeSpeed(Metric):
    """``prefill_ms.<n>``: time to read n tokens at once; ``decode_tokens_per_s.<n>``: new tokens
    per second behind them, greedily, one by one. Batch 1.

    The arms take turns, each repeat with a prefill and a cache of its own: a slow minute of the
    machine hits all of them, and no repeat starts with a longer context. A first round is not
    counted. The value is the median; low and high are the extremes, not a confidence interval.
    """

    name: ClassVar[str] = "decode_speed"

    context_tokens: Annotated[tuple[Length, ...], Field(min_length=1)] = (512, 2048)
    new_tokens: Annotated[int, Field(gt=0)] = 32
    repeats: Annotated[int, Field(gt=0)] = 3

    def names(self) -> tuple[str, ...]:
        kinds = ("prefill_ms", "decode_tokens_per_s")
        return tuple(f"{kind}.{tokens}" for tokens in self.context_tokens for kind in kinds)

    def estimate_tokens(self) -> int:
        return (self.repeats + 1) * sum(n + self.new_tokens for n in self.context_tokens)

    def measure(self, arms: Arms) -> Iterator[Figure]:
        for context in self.context_tokens:
            taken: dict[Arm, list[tuple[float, float]]] = {arm: [] for arm in arms.names}
            rounds = range(self.repeats + 1)
            for turn in arms.track(rounds, f"speed at {context:,} tokens"):
                first = turn % len(arms.names)  # so that none always follows the same other
                for arm in arms.names[first:] + arms.names[:first]:
                    taken[arm].append(prefill_and_decode(arms.model(arm), context, self.new_tokens))
            for arm, seconds in taken.items():
                prefill_s, decode_s = zip(*seconds[1:], strict=True)
                speeds = [self.new_tokens / s for s in decode_s]
                dtype = str(arms.model(arm).dtype).removeprefix("torch.")
                where = f"{dtype} on {arms.device}"
                yield _median(f"prefill_ms.{context}", arm, [s * 1e3 for s in prefill_s], where)
                yield _median(f"decode_tokens_per_s.{context}", arm, speeds, where)


def _median(metric: str, arm: Arm, values: list[float], where: str) -> Figure:
    is_time = metric.startswith("prefill_ms")
    return measured(
        metric,
        arm,
        statistics.median(values),
        unit="ms" if is_time else "tokens/s",
        higher_is_better=not is_time,
        interval=(min(values), max(values)),
        count=len(values),
        detail=f"median of {len(values)} repeats, low and high the extremes; {where}",
    )


@torch.inference_mode()
def prefill_and_decode(
    model: HybridForCausalLM, context_tokens: int, new_tokens: int
) -> tuple[float, float]:
    """Seconds of one prefill, and of ``new_tokens`` greedy steps behind it."""
    started = _now(model)
    cache, logits = prefill(model, context_tokens)
    read = _now(model)
    for _ in range(new_tokens):
        token = logits[:, -1:].argmax(-1)
        logits = model(token, past_key_values=cache, use_cache=True).logits
    return read - started, _now(model) - read


def _now(model: HybridForCausalLM) -> float:
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter()
