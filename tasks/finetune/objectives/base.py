"""The base classes of objectives: on logits, on single layers, or on the residual stream.

Shapes: B rows, T tokens, D hidden size, L layers.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from layerwright.tasks.components import Component


class Objective(Component):
    """A term of a stage's loss. Derive from one of the three classes below.

    Attributes:
        unit: unit of the reported value, before the weight.
        needs_base: whether the term compares the student with the base. Such a term is minimal when
            both are equal, so a stage with only such terms cannot change the base.
        weight: factor of the term in the loss.
    """

    kind: ClassVar[str] = "objective"
    room: ClassVar[str] = "layerwright.tasks.finetune.objectives"
    unit: ClassVar[str]
    needs_base: ClassVar[bool] = True

    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)


class LogitObjective(Objective):
    """A term of `distillation_loss`: a mean over counted tokens."""

    unit: ClassVar[str] = "nats"
    term: ClassVar[Literal["next_token", "kl"]]


class LayerObjective(Objective):
    """Compares a converted layer with the base's layer, both on the base's input of that layer."""

    @abstractmethod
    def of_layer(self, output_BTD: Tensor, target_BTD: Tensor, real_BT: Tensor) -> Tensor:
        """Return the value of each row for a layer, (B,) fp32; the loss averages over layers.

        Args:
            output_BTD: output of the student's mixer, with a gradient.
            target_BTD: output of the base's mixer.
            real_BT: False for padding.
        """


@dataclass(frozen=True)
class Streams:
    """The residual streams: entry l is the input of layer l, entry L the output of the last layer.

    Attributes:
        student: L + 1 tensors (B, T, D), with a gradient.
        base: L + 1 tensors (B, T, D) without a gradient; None if no objective needs the base.
        real: (B, T) False for padding.
        removed: removed layers of the student.
    """

    student: Sequence[Tensor]
    base: Sequence[Tensor] | None
    real: Tensor
    removed: frozenset[int]


class StreamObjective(Objective):
    """Reads the residual stream between the layers."""

    @abstractmethod
    def of_streams(self, streams: Streams) -> Tensor:
        """Return the value of each row, (B,) fp32."""


def mean_of_real(values_BT: Tensor, real_BT: Tensor) -> Tensor:
    """(B,): the mean over each row's real tokens."""
    return (values_BT * real_BT).sum(1) / real_BT.sum(1).clamp_min(1)
