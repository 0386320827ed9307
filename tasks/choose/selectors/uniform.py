"""Convert layers that are evenly spaced over the depth; reads no score."""

from pydantic import Field

from layerwright.tasks.choose.base import Problem, Selector, named
from layerwright.tasks.choose.ranking import require_layers
from layerwright.tasks.contracts.plan import PlanItem


class Uniform(Selector):
    """Convert N = ``layers`` of L layers: layer i of the N is (offset + floor(i L / N)) mod L.

    15 of 30 gives every other layer: 0, 2, ... with offset 0, and 1, 3, ... with offset 1. L counts
    only the layers that can get the recipe's first strategy; the others are kept.
    """

    name = "uniform"
    layers: int = Field(ge=0)
    offset: int = Field(default=0, ge=0)

    def select(self, problem: Problem) -> tuple[PlanItem, ...]:
        candidate = problem.candidates[0]
        possible = [p.layer for p in problem.layers if problem.possible(p, candidate)]
        total = len(possible)
        require_layers(problem, self.layers, total)
        positions = [self.offset + i * total // self.layers for i in range(self.layers)]
        chosen = {possible[position % total] for position in positions}
        rule = f"{self.layers} evenly spaced layers of {total}"
        items = []
        for layer in problem.layers:
            if layer.layer in chosen:
                reason = f"one of {rule}; {problem.saving([layer], candidate)}"
                items.append(problem.converted([layer], candidate, reason))
            elif layer.layer in possible:
                items.append(problem.kept(layer, f"not one of {rule}"))
            else:
                items.append(problem.kept(layer, f"cannot become {named(candidate.spec)}"))
        return tuple(items)
