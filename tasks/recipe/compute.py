"""The recipe's `compute` block: where each step runs, and with how much memory."""

from typing import Annotated, Literal, Self

from pydantic import ByteSize, Field, model_validator

from layerwright.tasks.contracts.base import Contract, Number
from layerwright.tasks.steps import placed_steps, steps

ONLY_ON_POOLS = ("pool", "queue", "slots", "timeout_minutes")


class StepPlacement(Contract):
    """The placement of one step: in this process, or on a worker of a Prefect work pool."""

    where: Literal["inline", "pool"] = "inline"
    # name of the work pool. Its deployment ``step/<pool>`` runs the step in a process of its own,
    # which sees the worker's devices.
    pool: Annotated[str, Field(min_length=1)] | None = None
    # the pool's queue in which the step waits
    queue: Annotated[str, Field(min_length=1)] | None = None
    # number of the pool's slots (GPUs) that the step holds while it runs
    slots: Annotated[int, Field(gt=0, strict=True)] = 1
    # how often the step runs again after it failed or its worker was lost
    retries: Annotated[int, Field(ge=0, strict=True)] = 0
    # the step is stopped after this time, waiting included
    timeout_minutes: Annotated[Number, Field(gt=0)] | None = None
    device: str = "auto"
    # above 1, training (``regularize``, ``finetune``) runs in this many processes, one per GPU,
    # with the models sharded among them
    processes: Annotated[int, Field(gt=0, strict=True)] = 1
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
