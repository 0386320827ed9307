"""Ranking, the base class of selectors that order the layers and convert the first of them."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Self

from pydantic import Field, model_validator

from layerwright.tasks.choose.base import Candidate, Problem, Selector, named, ordinal
from layerwright.tasks.contracts.plan import PlanItem
from layerwright.tasks.contracts.profile import LayerProfile
from layerwright.tasks.errors import InputError


class Ranking(Selector):
    """Convert the first layers of an order to the recipe's first strategy, each as its own item.

    Ties go to the lower layer. Layers that cannot get the strategy are not in the order and are
    kept. Set exactly one of the two attributes.
    """

    layers: int | None = Field(default=None, ge=0)  # number of layers to convert
    # convert the fewest layers that bring the model's KV bytes to this share of the base's
    kv_bytes_ratio: float | None = Field(default=None, gt=0, le=1)

    @model_validator(mode="after")
    def _has_a_single_limit(self) -> Self:
        if (self.layers is None) == (self.kv_bytes_ratio is None):
            raise ValueError("set exactly one of layers and kv_bytes_ratio")
        return self

    @abstractmethod
    def key(self, problem: Problem, layer: LayerProfile) -> tuple[float, str]:
        """The layer's key (the smallest comes first), and the reason: ``{rank}`` is ``3rd of 30``;
        InputError if the profile lacks a score or damage that the rule needs.
        """

    def excluded(self, problem: Problem, candidate: Candidate) -> dict[int, str]:
        """The layers that are never converted, each with the reason."""
        return {
            layer.layer: f"cannot become {named(candidate.spec)}"
            for layer in problem.layers
            if not problem.possible(layer, candidate)
        }

    def select(self, problem: Problem) -> tuple[PlanItem, ...]:
        candidate = problem.candidates[0]
        excluded = self.excluded(problem, candidate)
        layers = [layer for layer in problem.layers if layer.layer not in excluded]
        keys = {layer.layer: self.key(problem, layer) for layer in layers}
        order = sorted(layers, key=lambda layer: (keys[layer.layer][0], layer.layer))
        count = self._count(problem, candidate, order)
        items = {
            layer: problem.kept(problem.layers[layer], reason) for layer, reason in excluded.items()
        }
        for number, layer in enumerate(order, 1):
            reason = keys[layer.layer][1].format(rank=f"{ordinal(number)} of {len(order)}")
            if number <= count:
                reason = f"{reason}; {problem.saving([layer], candidate)}"
                items[layer.layer] = problem.converted([layer], candidate, reason)
            else:
                reason = f"{reason}; only the first {count} are converted"
                items[layer.layer] = problem.kept(layer, reason)
        return tuple(items[layer.layer] for layer in problem.layers)

    def _count(self, problem: Problem, candidate: Candidate, order: Sequence[LayerProfile]) -> int:
        if self.layers is not None:
            require_layers(problem, self.layers, len(order))
            return self.layers
        assert self.kv_bytes_ratio is not None
        base = problem.base_kv_bytes
        # a tolerance, so that rounding of the product does not convert one more layer
        budget, kv_bytes = self.kv_bytes_ratio * base * (1 + 1e-9), base
        count = 0
        while kv_bytes > budget and count < len(order):
            kept = problem.kept_kv_bytes(order[count])
            kv_bytes += min(candidate.layers[order[count].layer].kv_bytes - kept, 0)
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
    """InputError if ``requested`` is more than the ``available`` convertible layers."""
    if requested > available:
        raise InputError(
            f"cannot convert {requested} layers: {available} of the model's {len(problem.layers)} "
            "layers can be converted",
            where="choose.selector.layers",
            expected=f"at most {available}",
        )
