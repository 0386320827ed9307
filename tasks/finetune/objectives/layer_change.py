"""The change of the residual stream by some layers: a penalty on layers that will be removed."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from layerwright.tasks.finetune.objectives.base import StreamObjective, Streams, mean_of_real


class LayerChange(StreamObjective):
    """sum over ``layers`` of mean over tokens of ||x_{l+1} - x_l|| / n.

    ``norm`` "l2": the Euclidean norm over the D channels and n = sqrt(D), that is, the root mean
    square of the change. "l1": the sum of magnitudes and n = D. The division makes a weight mean
    the same for narrow and wide models. The penalty moves the function of these layers to other
    layers, so that they can be removed: TRSP, stage 2 (arXiv 2505.18232), which does not divide.
    """

    name: ClassVar[str] = "layer_change"
    unit: ClassVar[str] = "mean change, summed over layers"
    needs_base: ClassVar[bool] = False

    layers: tuple[int, ...] = Field(min_length=1)
    norm: Literal["l2", "l1"] = "l2"

    def of_streams(self, streams: Streams) -> Tensor:
        order = 2 if self.norm == "l2" else 1
        changes = []
        for layer in self.layers:
            change = streams.student[layer + 1].float() - streams.student[layer].float()
            norm_BT = change.norm(p=order, dim=-1) / change.shape[-1] ** (1 / order)
            changes.append(mean_of_real(norm_BT, streams.real))
        return torch.stack(changes).sum(0)
