"""Convert the layers that the recipe lists."""

from typing import Annotated

from pydantic import Field, field_validator

from layerwright.tasks.choose.base import Problem, Selector
from layerwright.tasks.contracts.plan import PlanItem
from layerwright.tasks.errors import InputError

Run = Annotated[tuple[int, int], Field(description="first and last layer of a run, both included")]


class Listed(Selector):
    """Convert exactly these layers to the recipe's first strategy; reads no score.

    ``layers``: indices from 0, and runs ``[first, last]``. A run becomes a single plan item: with a
    strategy that joins layers, a single map or removal.
    """

    name = "listed"
    layers: tuple[int | Run, ...] = Field(min_length=1)

    @field_validator("layers")
    @classmethod
    def _ascending(cls, layers: tuple[int | Run, ...]) -> tuple[int | Run, ...]:
        after = 0
        for first, last in map(_span, layers):
            if first < after or last < first:
                raise ValueError(
                    "list the layers in ascending order, each once, and runs as [first, last]"
                )
            after = last + 1
        return layers

    def select(self, problem: Problem) -> tuple[PlanItem, ...]:
        candidate, total = problem.candidates[0], len(problem.layers)
        spans = dict(map(_span, self.layers))
        if max(spans.values()) >= total:
            raise InputError(
                f"the model has no layer {max(spans.values())}",
                where="choose.selector.layers",
                expected=f"layers from 0 to {total - 1}",
            )
        inside = {layer for first, last in spans.items() for layer in range(first + 1, last + 1)}
        return tuple(
            problem.converted(
                problem.layers[layer : spans[layer] + 1], candidate, "listed in the recipe"
            )
            if layer in spans
            else problem.kept(problem.layers[layer], "not listed in the recipe")
            for layer in range(total)
            if layer not in inside
        )


def _span(entry: int | tuple[int, int]) -> tuple[int, int]:
    return entry if isinstance(entry, tuple) else (entry, entry)
