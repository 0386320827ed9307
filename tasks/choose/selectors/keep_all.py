"""Keep every layer: the unconverted base as the reference in a survey."""

from layerwright.tasks.choose.base import Problem, Selector
from layerwright.tasks.contracts.plan import PlanItem


class KeepAll(Selector):
    """Keep every layer."""

    name = "keep_all"

    def select(self, problem: Problem) -> tuple[PlanItem, ...]:
        return tuple(problem.kept(layer, "every layer is kept") for layer in problem.layers)
