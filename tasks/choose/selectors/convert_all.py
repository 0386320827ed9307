"""Convert every layer: the cheapest end of a survey's frontier."""

from __future__ import annotations

from typing import ClassVar

from layerwright.tasks.choose.base import Problem, Selector
from layerwright.tasks.contracts.plan import PlanItem


class ConvertAll(Selector):
    """Convert every layer to the recipe's first strategy."""

    name: ClassVar[str] = "convert_all"

    def select(self, problem: Problem) -> tuple[PlanItem, ...]:
        candidate = problem.candidates[0]
        return tuple(
            problem.converted(
                layer,
                candidate,
                f"every layer is converted; {problem.saving(layer, candidate)}",
            )
            for layer in problem.layers
        )
