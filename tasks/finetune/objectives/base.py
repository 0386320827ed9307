"""The base classes of objectives: on logits, on single layers, or on the residual stream.

Shapes: B rows, T tokens, D hidden size, L layers.
"""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from layerwright.tasks.components import Component


class Objective(Component):
    """A term of a stage's loss. Derive from one of the three classes below."""

    kind: ClassVar[str] = "objective"
    room: ClassVar[str] = "layerwright.tasks.finetune.objectives"
    unit: ClassVar[str]  # unit of the reported value, before the weight
    # whether it compares with the base; then it is minimal where both are equal
    needs_base: ClassVar[bool] = True

    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)  # factor of the term in the loss


class LogitObjective(Objective):
    """A term of `distillation_loss`: a mean over counted tokens."""

    unit: ClassVar[str] = "nats"
    term: ClassVar[Literal["next_token", "kl"]]


class LayerObjective(Objective):
    """Compares a converted layer with the base's layer, both on the base's input of that layer."""

    @abstractmethod
    def of_layer(self, output_BTD: Tensor, target_BTD: Tensor, real_BT: Tensor) -> Tensor:
        """The value of each row for a layer, (B,) fp32; the loss averages over layers.

        ``output_BTD`` is the output of the student's mixer, with a gradient, and ``target_BTD``
        that of the base's.
        """


@dataclass(frozen=True)
class Streams:
    """The residual streams: entry l is the input of layer l, entry L the output of the last."""

    student: Sequence[Tensor]  # L + 1 tensors (B, T, D), with a gradient
    base: Sequence[Tensor] | None  # as many, without a gradient; None if no objective needs it
    real: Tensor  # (B, T) False for padding
    removed: frozenset[int]  # removed layers of the student


class StreamObjective(Objective):
    """Reads the residual stream between the layers."""

    @abstractmethod
    def of_streams(self, streams: Streams) -> Tensor:
        """Return the value of each row, (B,) fp32."""


def row_means(values_BT: Iterable[Tensor], real_BT: Tensor) -> Tensor:
    """(L, B): of each of L tensors, the mean over each row's real tokens."""
    count = real_BT.sum(1).clamp_min(1)
    return torch.stack([(value * real_BT).sum(1) / count for value in values_BT])
