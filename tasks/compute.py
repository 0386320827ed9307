"""Where the steps of a run work, with how much memory: the recipe's `compute` block."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ByteSize, Field

from tasks.contracts import Contract


class Placement(Contract):
    """Where one step runs. ``inline`` is this process.

    ``processes`` above 1 spreads training (``regularize``, ``finetune``) over that many processes,
    one to each GPU, with the models sharded among them. ``memory``, such as ``2GB``, bounds the
    weights that the device holds in ``profile``, ``choose``, ``convert`` and ``evaluate``: where
    the model is larger, its layers are read from disk in turn, and all rows pass one before the
    next. The results are the same; training holds its models whole.
    """

    where: Literal["inline"] = "inline"
    device: str = "auto"
    processes: Annotated[int, Field(gt=0, strict=True)] = 1
    memory: Annotated[ByteSize, Field(gt=0)] | None = None


class Compute(Contract):
    default: Placement = Placement()
    steps: dict[str, Placement] = {}

    def of(self, step: str) -> Placement:
        return self.steps.get(step, self.default)

    def memory_of(self, step: str) -> int | None:
        """The bound in bytes on a step's weights; None where it has none."""
        return self.of(step).memory if step in STREAMING_STEPS else None


STEPS = (
    "fetch", "profile", "measure_costs", "choose", "regularize", "convert",
    "finetune", "evaluate", "gate", "register",
)  # fmt: skip
STREAMING_STEPS = ("profile", "choose", "convert", "evaluate")  # those that `memory` can bound
TRAINING_STEPS = ("regularize", "finetune")  # those that more than one process can share
