"""The steps of the DAG, which the ``task.py`` of each room declares.

All lists of steps come from here: the recipe's `compute` block, the dry run, the page, the cost of
a run. Declarations are discovered like components; they import neither Prefect nor torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from layerwright import ROOT

if TYPE_CHECKING:
    from layerwright.tasks.contracts.references import ModelRef
    from layerwright.tasks.recipe.recipe import Recipe

# (recipe, base, seconds per token of a forward pass of the whole base) -> seconds of the step
Estimate = Callable[["Recipe", "ModelRef", float], float]


@dataclass(frozen=True)
class Step:
    """A step of the DAG."""

    name: str
    after: str | None = None  # the previous step; None for the first
    # the block of the recipe that enables the step; None for steps of every run
    block: str | None = None
    # the time that the dry run shows, or ``module.function`` of an `Estimate`
    seconds: float | str | None = None
    # the step can run on a worker of a pool; otherwise it runs in the run's process
    placed: bool = True
    streams: bool = False  # the recipe's ``memory`` bounds the weights on the step's device
    trains: bool = False  # several processes can share the step, and it sends live metrics
    listed: bool = True  # the recipe's `compute` block and the dry run list it

    def estimate(self, recipe: Recipe, model: ModelRef, token_seconds: float) -> float | None:
        """The estimated seconds of the step, within a factor of two; None if unknown."""
        if not isinstance(self.seconds, str):
            return self.seconds
        module, _, name = self.seconds.rpartition(".")
        function: Estimate = getattr(import_module(module), name)
        return round(function(recipe, model, token_seconds), 1)


@cache
def steps() -> dict[str, Step]:
    """All listed steps by name, in the order of the DAG."""
    values = [value for module in declarations() for value in vars(module).values()]
    declared = {step.name: step for step in values if isinstance(step, Step) and step.listed}

    def following(name: str | None) -> Iterator[Step]:
        for _, step in sorted(declared.items()):
            if step.after == name:
                yield step
                yield from following(step.name)

    return {step.name: step for step in following(None)}


def placed_steps() -> tuple[str, ...]:
    """The steps that can run on a worker, and whose time counts as device time."""
    return tuple(name for name, step in steps().items() if step.placed)


def declarations() -> Iterator[ModuleType]:
    """The modules ``task.py`` of all rooms."""
    for path in sorted((ROOT / "tasks").glob("*/task.py")):
        yield import_module(f"layerwright.tasks.{path.parent.name}.task")
