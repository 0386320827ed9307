"""What most published rules have in common: order the layers, convert the first of them."""

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
    """A layer in its place, and why it stands there."""

    layer: LayerProfile
    reason: str


class Ranking(Selector):
    """Convert the first layers of an order to the recipe's first strategy, each by itself.

    A subclass says the order. Layers that cannot become the strategy are in no order and are kept.

    Attributes:
        layers: how many layers to convert.
        kv_bytes_ratio: convert as many as bring the model's KV bytes to this share of the base's,
            and no more. Exactly one of the two is given.
    """

    layers: int | None = Field(default=None, ge=0)
    kv_bytes_ratio: float | None = Field(default=None, gt=0, le=1)

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.layers is None) == (self.kv_bytes_ratio is None):
            raise ValueError("exactly one of layers and kv_bytes_ratio")
        return self

    @abstractmethod
    def order(self, problem: Problem, layers: Sequence[LayerProfile]) -> list[Ranked]:
        """Those of ``layers`` that may be converted, the first to be converted first.

        Raises:
            InputError: the profile lacks what the rule reads.
        """

    def why_never(self, problem: Problem, candidate: Candidate) -> dict[int, str]:
        """Why layers, by their index, are in no order."""
        return {
            layer.layer: f"cannot become {named(candidate.spec)}"
            for layer in problem.layers
            if not problem.possible(layer, candidate)
        }

    def select(self, problem: Problem) -> tuple[PlanItem, ...]:
        candidate = problem.candidates[0]
        never = self.why_never(problem, candidate)
        order = self.order(problem, [p for p in problem.layers if p.layer not in never])
        count = self._count(problem, candidate, [ranked.layer for ranked in order])
        items = {layer: problem.kept(problem.layers[layer], why) for layer, why in never.items()}
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
        # 0.6 of something is seldom exact in binary, and rounding must not cost a layer
        budget, kv_bytes = self.kv_bytes_ratio * base * (1 + 1e-9), base
        count = 0
        while kv_bytes > budget and count < len(order):
            layer = order[count]
            kept = problem.kept_kv_bytes(layer)
            kv_bytes += min(candidate.layers[layer.layer].kv_bytes - kept, 0)
            count += 1
        if kv_bytes > budget:
            best, all_of_them = kv_bytes / base, "every layer"
            if len(order) < len(problem.layers):
                all_of_them = f"all {len(order)} layers that may be"
            raise InputError(
                f"kv_bytes_ratio {self.kv_bytes_ratio:g} is out of reach at "
                f"{problem.context_tokens:,} tokens: with {all_of_them} converted it is {best:.4f}",
                where="choose.selector.kv_bytes_ratio",
                expected=f"kv_bytes_ratio of at least {math.ceil(best * 1e4) / 1e4:g}",
                remedy="or put a strategy that keeps fewer bytes first",
            )
        return count


def require_layers(problem: Problem, asked: int, available: int) -> None:
    """Refuse to convert more layers than may be.

    Raises:
        InputError: ``asked`` is more than ``available``.
    """
    if asked <= available:
        return
    total = len(problem.layers)
    may_be = f", of which {available} may be converted" if available < total else ""
    raise InputError(
        f"the model has {total} layers{may_be}, {asked} cannot be converted",
        where="choose.selector.layers",
        expected=f"at most {available}",
    )


def by_figure(
    layers: Sequence[LayerProfile],
    figure: Callable[[LayerProfile], float],
    words: str,
    *,
    largest_first: bool = False,
) -> list[Ranked]:
    """Layers by a figure, the smallest first; ties go to the lower layer.

    Args:
        words: of the reason, with ``{place}`` (``3rd of 30``) and ``{figure}`` to be filled in.
    """
    figures = {layer.layer: figure(layer) for layer in layers}
    sign = -1 if largest_first else 1
    ordered = sorted(layers, key=lambda layer: (sign * figures[layer.layer], layer.layer))
    return [
        Ranked(
            layer,
            words.format(place=f"{ordinal(rank)} of {len(layers)}", figure=figures[layer.layer]),
        )
        for rank, layer in enumerate(ordered, 1)
    ]
