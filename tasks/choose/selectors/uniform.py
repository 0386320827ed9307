"""Layers spread evenly over the depth, whatever was measured."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from layerwright.tasks.choose.base import Problem, Selector, named
from layerwright.tasks.choose.ranking import require_layers
from layerwright.tasks.contracts.plan import PlanItem


class Uniform(Selector):
    """Convert every k-th layer: the i-th of N converted ones is offset + floor(i L / N) of L.

    15 of 30 are every other layer: 0, 2, ... with offset 0, 1, 3, ... with offset 1. What passes
    the last layer goes on at the first. L counts the layers that can become the recipe's first
    strategy; the others are kept.

    Attributes:
        layers: how many layers to convert.
        offset: by how many layers all of them are shifted up.
    """

    name: ClassVar[str] = "uniform"

    layers: int = Field(ge=0)
    offset: int = Field(default=0, ge=0)

    def select(self, problem: Problem) -> tuple[PlanItem, ...]:
        candidate = problem.candidates[0]
        able = [p.layer for p in problem.layers if problem.possible(p, candidate)]
        require_layers(problem, self.layers, len(able))
        spread = [self.offset + i * len(able) // self.layers for i in range(self.layers)]
        chosen = {able[place % len(able)] for place in spread}
        reason = f"{self.layers} of {len(able)} layers, spread evenly"
        items = []
        for layer in problem.layers:
            if layer.layer in chosen:
                why = f"one of {reason}; {problem.saving(layer, candidate)}"
                items.append(problem.converted(layer, candidate, why))
            elif layer.layer in able:
                items.append(problem.kept(layer, f"not one of {reason}"))
            else:
                items.append(problem.kept(layer, f"cannot become {named(candidate.spec)}"))
        return tuple(items)
