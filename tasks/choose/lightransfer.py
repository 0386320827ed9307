"""LightTransfer's rule: the laziest layers are converted (arXiv 2410.13846, section 3)."""

from __future__ import annotations

import math
from typing import ClassVar

from pydantic import Field, model_validator

from tasks.choose.base import Candidate, Problem, Selector, ordinal
from tasks.contracts import PlanItem
from tasks.errors import InputError

SCORE, PROFILER = "lazy_ratio", "laziness"


class LightTransfer(Selector):
    """Order the layers by lazy ratio, highest first, and convert the first ``layers`` of them.

    The lazy ratio is the share of attention mass on the sinks and the recent window, so 1 - ratio
    bounds the error of dropping the rest (theorem 3.1). Ties go to the lower layer. All converted
    layers become the recipe's first strategy.

    Attributes:
        layers: how many layers to convert.
        kv_bytes_ratio: convert as many as bring the model's KV bytes to this share of the base's,
            and no more. Exactly one of the two is given.
    """

    name: ClassVar[str] = "lightransfer"

    layers: int | None = Field(default=None, ge=0)
    kv_bytes_ratio: float | None = Field(default=None, gt=0, le=1)

    @model_validator(mode="after")
    def _one_of_them(self) -> LightTransfer:
        if (self.layers is None) == (self.kv_bytes_ratio is None):
            raise ValueError("exactly one of layers and kv_bytes_ratio")
        return self

    def select(self, problem: Problem) -> tuple[PlanItem, ...]:
        candidate, total = problem.candidates[0], len(problem.layers)
        scores = {p.layer: problem.score(p, SCORE, PROFILER) for p in problem.layers}
        order = sorted(scores, key=lambda layer: (-scores[layer], layer))
        count = self._count(problem, candidate, order)
        items = []
        for layer in problem.layers:
            rank = order.index(layer.layer) + 1
            reason = f"laziest {ordinal(rank)} of {total}: lazy ratio {scores[layer.layer]:.3f}"
            if rank <= count:
                reason = f"{reason}; {problem.saving(layer, candidate)}"
                items.append(problem.converted(layer, candidate, reason))
            else:
                items.append(problem.kept(layer, f"{reason}; only the first {count} are converted"))
        return tuple(items)

    def _count(self, problem: Problem, candidate: Candidate, order: list[int]) -> int:
        total = len(problem.layers)
        if self.layers is not None:
            if self.layers > total:
                raise InputError(
                    f"the model has {total} layers, {self.layers} cannot be converted",
                    where="choose.selector.layers",
                    expected=f"at most {total}",
                )
            return self.layers
        assert self.kv_bytes_ratio is not None
        base = problem.base_kv_bytes
        # 0.6 of something is seldom exact in binary, and rounding must not cost a layer
        budget, kv_bytes = self.kv_bytes_ratio * base * (1 + 1e-9), base
        count = 0
        while kv_bytes > budget and count < total:
            layer = order[count]
            kept = problem.kept_kv_bytes(problem.layers[layer])
            kv_bytes += min(candidate.layers[layer].kv_bytes - kept, 0)
            count += 1
        if kv_bytes > budget:
            best = kv_bytes / base
            raise InputError(
                f"kv_bytes_ratio {self.kv_bytes_ratio:g} is out of reach at "
                f"{problem.context_tokens:,} tokens: with every layer converted it is {best:.4f}",
                where="choose.selector.kv_bytes_ratio",
                expected=f"kv_bytes_ratio of at least {math.ceil(best * 1e4) / 1e4:g}",
                remedy="or put a strategy that keeps fewer bytes first",
            )
        return count
