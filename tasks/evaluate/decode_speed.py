"""How fast each arm reads a prompt and writes behind it."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from functools import partial
from typing import Annotated, ClassVar

from pydantic import Field

from tasks.contracts import Arm
from tasks.evaluate.arms import Arms
from tasks.evaluate.base import Figure, Metric, measured
from tasks.measure.speed import interleaved_speeds

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
        models = {arm: arms.model(arm) for arm in arms.names}
        for context in self.context_tokens:
            found = interleaved_speeds(
                models,
                context,
                decode_tokens=self.new_tokens,
                repeats=self.repeats,
                track=partial(arms.track, what=f"speed at {context:,} tokens"),
            )
            for arm, model in models.items():
                dtype = str(model.dtype).removeprefix("torch.")
                where = f"{dtype} on {arms.device}"
                prefill_ms = [s * 1e3 for s in found[arm].prefill_seconds]
                per_second = [1 / s for s in found[arm].decode_seconds_per_token]
                yield _median(f"prefill_ms.{context}", arm, prefill_ms, where)
                yield _median(f"decode_tokens_per_s.{context}", arm, per_second, where)


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
