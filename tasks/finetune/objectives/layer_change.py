"""How much some layers change the stream: the penalty before they are removed."""

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from layerwright.tasks.finetune.objectives.base import StreamObjective, Streams, mean_of_real


class LayerChange(StreamObjective):
    """sum over ``layers`` of mean over tokens of ||x_{l+1} - x_l||, divided by its size.

    With ``norm`` "l2" the Euclidean norm over the D channels divided by sqrt(D), the root mean
    square of the change; with "l1" the sum of magnitudes divided by D. So divided, one weight means
    the same for narrow and wide models. It drives what the layers know elsewhere, so that they can
    be removed: TRSP, stage 2 (arXiv 2505.18232), which uses the undivided norm.
    """

    name: ClassVar[str] = "layer_change"
    unit: ClassVar[str] = "mean change, summed over layers"
    needs_base: ClassVar[bool] = False

    layers: tuple[int, ...] = Field(min_length=1)
    norm: Literal["l2", "l1"] = "l2"

    def of_streams(self, streams: Streams) -> Tensor:
        order, total = (2, 0.0) if self.norm == "l2" else (1, 0.0)
        for layer in self.layers:
            change = streams.student[layer + 1].float() - streams.student[layer].float()
            norm_BT = change.norm(p=order, dim=-1) / change.shape[-1] ** (1 / order)
            total = total + mean_of_real(norm_BT, streams.real)
        return total
