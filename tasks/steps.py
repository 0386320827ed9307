"""The steps of the DAG and what each says of itself, in its room's ``task.py``.

Everything that lists steps asks here: the recipe's `compute` block, the dry run, the page, the cost
of a run. Declarations are found as components are, and import neither Prefect nor torch.
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

# seconds from the recipe, the base, and the time of one token in a forward pass of all of it
Estimate = Callable[["Recipe", "ModelRef", float], float]


@dataclass(frozen=True)
class Step:
    """A verb of the DAG.

    Attributes:
        after: the step before it, for the order of lists; None for the first.
        block: the block of the recipe that asks for it; None where every run has it.
        seconds: its time for the dry run, or ``module.function`` that estimates it (`Estimate`).
        placed: runs on the workers of a pool where the recipe says so; False: in the run itself.
        streams: ``memory`` bounds the weights that its device holds.
        trains: several processes can share it, and it sends live metrics.
        listed: the recipe's `compute` block and the dry run know it.
    """

    name: str
    after: str | None = None
    block: str | None = None
    seconds: float | str | None = None
    placed: bool = True
    streams: bool = False
    trains: bool = False
    listed: bool = True

    def estimate(self, recipe: Recipe, model: ModelRef, token_seconds: float) -> float | None:
        """Seconds that the step takes, good to a factor of two; None where nothing says."""
        if not isinstance(self.seconds, str):
            return self.seconds
        module, _, name = self.seconds.rpartition(".")
        function: Estimate = getattr(import_module(module), name)
        return round(function(recipe, model, token_seconds), 1)


@cache
def steps() -> dict[str, Step]:
    """Every listed step by name, in the order of the DAG."""
    declared = {
        step.name: step
        for module in declarations()
        for step in vars(module).values()
        if isinstance(step, Step) and step.listed
    }

    def following(name: str | None) -> Iterator[Step]:
        for step in sorted(declared.values(), key=lambda step: step.name):
            if step.after == name:
                yield step
                yield from following(step.name)

    return {step.name: step for step in following(None)}


def placed_steps() -> tuple[str, ...]:
    """The steps whose time is that of a device: all but the parent's own."""
    return tuple(name for name, step in steps().items() if step.placed)


def declarations() -> Iterator[ModuleType]:
    """The module ``task.py`` of every room that has one."""
    for path in sorted((ROOT / "tasks").glob("*/task.py")):
        yield import_module(f"layerwright.tasks.{path.parent.name}.task")
