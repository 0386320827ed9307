"""The recipe's `compute` block: where each step runs, and with how much memory."""

from typing import Annotated, Literal, Self

from pydantic import ByteSize, Field, model_validator

from layerwright.tasks.contracts.base import Contract, Count, Number, Positive
from layerwright.tasks.steps import placed_steps, steps

ONLY_ON_POOLS = ("pool", "queue", "slots", "timeout_minutes")


class StepPlacement(Contract):
    """The placement of one step: in this process, or on a worker of a Prefect work pool."""

    where: Literal["inline", "pool"] = "inline"
    # its deployment ``step/<pool>`` runs the step in a process that sees the worker's devices
    pool: Annotated[str, Field(min_length=1)] | None = None
    queue: Annotated[str, Field(min_length=1)] | None = None  # of the pool, in which the step waits
    slots: Positive = 1  # the pool's slots (GPUs) that the step holds while it runs
    retries: Count = 0  # how often the step runs again after it failed or its worker was lost
    timeout_minutes: Annotated[Number, Field(gt=0)] | None = None  # waiting included
    device: str = "auto"
    processes: Positive = 1  # share a training; one per GPU, with the models sharded among them
    # such as ``2GB``; bounds the weights on the device in ``profile``, ``choose``, ``convert`` and
    # ``evaluate``. The layers of a larger model are read from disk in turn, and all rows pass
    # through one layer before the next. The results are the same.
    memory: Annotated[ByteSize, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _of_a_pool(self) -> Self:
        defaults = {name: type(self).model_fields[name].default for name in ONLY_ON_POOLS}
        given = [name for name, default in defaults.items() if getattr(self, name) != default]
        if self.where == "inline" and given:
            raise ValueError(f"where: pool together with {', '.join(given)}")
        if self.where == "pool" and self.pool is None:
            raise ValueError("pool: the name of a work pool")
        return self


class Compute(Contract):
    """The placement of every step: its own in ``steps``, or else ``default``."""

    default: StepPlacement = StepPlacement()
    steps: dict[str, StepPlacement] = {}

    def of(self, step: str) -> StepPlacement:
        """The placement of a step. A pool as ``default`` does not apply to gate and register."""
        placement = self.steps.get(step, self.default)
        return placement if step in placed_steps() or placement.pool is None else StepPlacement()

    def memory_of(self, step: str) -> int | None:
        """The bound in bytes on a step's weights; None if there is no bound."""
        declared = steps().get(step)
        return self.of(step).memory if declared and declared.streams else None
