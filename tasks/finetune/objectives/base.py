"""What an objective is: a number for each row, read from logits, from a layer, or from the stream.

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
    """One term of a stage's loss, times its ``weight``. Derive from one of the classes below.

    Attributes:
        unit: of the value that is reported, before the weight.
        needs_base: whether the base model has to be run as well. Such a term is least where student
            and base agree: a stage of such terms alone leaves a model that is the base as it is.
    """

    kind: ClassVar[str] = "objective"
    room: ClassVar[str] = "layerwright.tasks.finetune.objectives"
    unit: ClassVar[str]
    needs_base: ClassVar[bool] = True

    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)


class LogitObjective(Objective):
    """A term of the fused loss (``tasks/finetune/distillation.py``): mean per counted token."""

    unit: ClassVar[str] = "nats"
    term: ClassVar[Literal["next_token", "kl"]]


class LayerObjective(Objective):
    """Compares a converted layer with the base's, both given the base's input: layer-local."""

    @abstractmethod
    def of_layer(self, output_BTD: Tensor, wanted_BTD: Tensor, real_BT: Tensor) -> Tensor:
        """(B,) fp32 of one layer; the objective's value is the mean over the converted layers.

        Args:
            output_BTD: of the student's mixer, with a gradient.
            wanted_BTD: of the base's.
            real_BT: False for padding.
        """


@dataclass(frozen=True)
class Streams:
    """The residual stream of both models: entry l is the input of layer l, entry L the output.

    Attributes:
        student: L + 1 tensors (B, T, D), with a gradient.
        base: the same of the base, without one; None where no objective needs the base.
        real: (B, T) False for padding.
        removed: layers of the student that do nothing.
    """

    student: Sequence[Tensor]
    base: Sequence[Tensor] | None
    real: Tensor
    removed: frozenset[int]


class StreamObjective(Objective):
    """Reads the residual stream between the layers."""

    @abstractmethod
    def of_streams(self, streams: Streams) -> Tensor:
        """(B,) fp32."""


def mean_of_real(values_BT: Tensor, real_BT: Tensor) -> Tensor:
    """(B,): the mean over each row's real tokens."""
    return (values_BT * real_BT).sum(1) / real_BT.sum(1).clamp_min(1)
