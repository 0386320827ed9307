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
        count = self._count(problem, candidate)
        scores = {p.layer: problem.score(p, SCORE, PROFILER) for p in problem.layers}
        order = sorted(scores, key=lambda layer: (-scores[layer], layer))
        items = []
        for layer in problem.layers:
            rank = order.index(layer.layer) + 1
            reason = f"laziest {ordinal(rank)} of {total}: lazy ratio {scores[layer.layer]:.3f}"
            if rank <= count:
                reason = f"{reason}; {problem.saving(candidate)}"
                items.append(problem.converted(layer, candidate, reason))
            else:
                items.append(problem.kept(layer, f"{reason}; only the first {count} are converted"))
        return tuple(items)

    def _count(self, problem: Problem, candidate: Candidate) -> int:
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
        to_save = problem.base_kv_bytes * (1 - self.kv_bytes_ratio)
        if to_save <= 0:
            return 0
        each = problem.full_kv_bytes - candidate.kv_bytes
        # 1 - 0.6 leaves rounding behind, which must not cost a layer
        count = math.ceil(to_save / each - 1e-9) if each > 0 else total + 1
        if count > total:
            best = min(candidate.kv_bytes / problem.full_kv_bytes, 1.0)
            raise InputError(
                f"kv_bytes_ratio {self.kv_bytes_ratio:g} is out of reach at "
                f"{problem.context_tokens:,} tokens: with every layer converted it is {best:.4f}",
                where="choose.selector.kv_bytes_ratio",
                expected=f"kv_bytes_ratio of at least {math.ceil(best * 1e4) / 1e4:g}",
                remedy="or put a strategy that keeps fewer bytes first",
            )
        return count
