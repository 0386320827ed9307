"""Ranking, the base class of selectors that order the layers and convert the first of them."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

from pydantic import Field, model_validator

from layerwright.tasks.choose.base import Candidate, Problem, Selector, named, ordinal
from layerwright.tasks.contracts.plan import PlanItem
from layerwright.tasks.contracts.profile import LayerProfile
from layerwright.tasks.errors import InputError


class Ranked(NamedTuple):
    """A layer of the order, and the reason for its position."""

    layer: LayerProfile
    reason: str


class Ranking(Selector):
    """Convert the first layers of an order to the recipe's first strategy, each as its own item.

    A subclass defines the order. Layers that cannot get the strategy are not in the order and are
    kept. Set exactly one of the two attributes.

    Attributes:
        layers: number of layers to convert.
        kv_bytes_ratio: convert the fewest layers that bring the model's KV bytes down to this
            share of the base's.
    """

    layers: int | None = Field(default=None, ge=0)
    kv_bytes_ratio: float | None = Field(default=None, gt=0, le=1)

    @model_validator(mode="after")
    def _has_a_single_limit(self) -> Self:
        if (self.layers is None) == (self.kv_bytes_ratio is None):
            raise ValueError("set exactly one of layers and kv_bytes_ratio")
        return self

    @abstractmethod
    def order(self, problem: Problem, layers: Sequence[LayerProfile]) -> list[Ranked]:
        """Order ``layers``: the layer to convert first comes first.

        Raises:
            InputError: the profile lacks a score or damage that the rule needs.
        """

    def excluded(self, problem: Problem, candidate: Candidate) -> dict[int, str]:
        """Return the layers that are never converted, each with the reason."""
        return {
            layer.layer: f"cannot become {named(candidate.spec)}"
            for layer in problem.layers
            if not problem.possible(layer, candidate)
        }

    def select(self, problem: Problem) -> tuple[PlanItem, ...]:
        candidate = problem.candidates[0]
        excluded = self.excluded(problem, candidate)
        order = self.order(problem, [p for p in problem.layers if p.layer not in excluded])
        count = self._count(problem, candidate, [ranked.layer for ranked in order])
        items = {
            layer: problem.kept(problem.layers[layer], reason) for layer, reason in excluded.items()
        }
        for rank, (layer, reason) in enumerate(order):
            if rank < count:
                reason = f"{reason}; {problem.saving(layer, candidate)}"
                items[layer.layer] = problem.converted(layer, candidate, reason)
            else:
                reason = f"{reason}; only the first {count} are converted"
                items[layer.layer] = problem.kept(layer, reason)
        return tuple(items[layer.layer] for layer in problem.layers)

    def _count(self, problem: Problem, candidate: Candidate, order: list[LayerProfile]) -> int:
        if self.layers is not None:
            require_layers(problem, self.layers, len(order))
            return self.layers
        assert self.kv_bytes_ratio is not None
        base = problem.base_kv_bytes
        # a tolerance, so that rounding of the product does not convert one more layer
        budget, kv_bytes = self.kv_bytes_ratio * base * (1 + 1e-9), base
        count = 0
        while kv_bytes > budget and count < len(order):
            layer = order[count]
            kept = problem.kept_kv_bytes(layer)
            kv_bytes += min(candidate.layers[layer.layer].kv_bytes - kept, 0)
            count += 1
        if kv_bytes > budget:
            best = kv_bytes / base
            raise InputError(
                f"kv_bytes_ratio {self.kv_bytes_ratio:g} is out of reach at "
                f"{problem.context_tokens:,} tokens: it is {best:.4f} with all {len(order)} "
                "convertible layers converted",
                where="choose.selector.kv_bytes_ratio",
                expected=f"kv_bytes_ratio of at least {math.ceil(best * 1e4) / 1e4:g}",
                remedy="raise the ratio, or put a strategy with fewer KV bytes first",
            )
        return count


def require_layers(problem: Problem, requested: int, available: int) -> None:
    """Check that the model has enough convertible layers.

    Raises:
        InputError: ``requested`` is more than ``available``.
    """
    if requested <= available:
        return
    raise InputError(
        f"cannot convert {requested} layers: {available} of the model's {len(problem.layers)} "
        "layers can be converted",
        where="choose.selector.layers",
        expected=f"at most {available}",
    )


def ranked_by(
    score: Callable[[LayerProfile], float],
    layers: Sequence[LayerProfile],
    reason: str,
    *,
    largest_first: bool = False,
) -> list[Ranked]:
    """Order layers by a score, the smallest first; ties go to the lower layer.

    Args:
        reason: template of the reason, with ``{rank}`` (``3rd of 30``) and ``{score}``.
    """
    scores = {layer.layer: score(layer) for layer in layers}
    sign = -1 if largest_first else 1
    ordered = sorted(layers, key=lambda layer: (sign * scores[layer.layer], layer.layer))
    return [
        Ranked(
            layer,
            reason.format(rank=f"{ordinal(rank)} of {len(layers)}", score=scores[layer.layer]),
        )
        for rank, layer in enumerate(ordered, 1)
    ]
