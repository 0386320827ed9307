"""Convert every layer: the cheapest end of a survey's frontier."""

from layerwright.tasks.choose.base import Problem, Selector
from layerwright.tasks.contracts.plan import PlanItem


class ConvertAll(Selector):
    """Convert every layer to the recipe's first strategy."""

    name = "convert_all"

    def select(self, problem: Problem) -> tuple[PlanItem, ...]:
        candidate = problem.candidates[0]
        reason = "every layer is converted; "
        return tuple(
            problem.converted([layer], candidate, reason + problem.saving([layer], candidate))
            for layer in problem.layers
        )
