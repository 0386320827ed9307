"""Where the steps of a run work, with how much memory: the recipe's `compute` block."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ByteSize, Field, model_validator

from layerwright.tasks.contracts.base import Contract, Number
from layerwright.tasks.steps import placed_steps, steps

ONLY_ON_POOLS = ("pool", "queue", "slots", "timeout_minutes")


class Placement(Contract):
    """Where one step runs: in this process, or on a worker of a Prefect work pool.

    ``pool`` names the pool. The worker's deployment ``step/<pool>`` runs the step in a process of
    its own, which sees the worker's devices. ``slots`` is how many of the pool's slots (GPUs) the
    step holds while it works, ``queue`` the pool's queue that it waits in, ``retries`` how often it
    is given to a worker again when it failed or its worker was lost, and ``timeout_minutes`` after
    how long it is stopped, waiting included.

    ``processes`` above 1 spreads training (``regularize``, ``finetune``) over that many processes,
    one to each GPU, with the models sharded among them. ``memory``, such as ``2GB``, bounds the
    weights that the device holds in ``profile``, ``choose``, ``convert`` and ``evaluate``: where
    the model is larger, its layers are read from disk in turn, and all rows pass one before the
    next. The results are the same; training holds its models whole.
    """

    where: Literal["inline", "pool"] = "inline"
    pool: Annotated[str, Field(min_length=1)] | None = None
    queue: Annotated[str, Field(min_length=1)] | None = None
    slots: Annotated[int, Field(gt=0, strict=True)] = 1
    retries: Annotated[int, Field(ge=0, strict=True)] = 0
    timeout_minutes: Annotated[Number, Field(gt=0)] | None = None
    device: str = "auto"
    processes: Annotated[int, Field(gt=0, strict=True)] = 1
    memory: Annotated[ByteSize, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _of_a_pool(self) -> Placement:
        defaults = {name: type(self).model_fields[name].default for name in ONLY_ON_POOLS}
        given = [name for name, default in defaults.items() if getattr(self, name) != default]
        if self.where == "inline" and given:
            raise ValueError(f"where: pool beside {', '.join(given)}")
        if self.where == "pool" and self.pool is None:
            raise ValueError("pool: the name of a work pool")
        return self


class Compute(Contract):
    default: Placement = Placement()
    steps: dict[str, Placement] = {}

    def of(self, step: str) -> Placement:
        placement = self.steps.get(step, self.default)
        return placement if step in placed_steps() or placement.pool is None else Placement()

    def memory_of(self, step: str) -> int | None:
        """The bound in bytes on a step's weights; None where it has none."""
        declared = steps().get(step)
        return self.of(step).memory if declared and declared.streams else None
