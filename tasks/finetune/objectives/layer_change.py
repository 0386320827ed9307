"""The change of the residual stream by some layers: a penalty on layers that will be removed."""

from typing import Literal

from pydantic import Field
from torch import Tensor

from layerwright.tasks.finetune.objectives.base import StreamObjective, Streams, row_means


class LayerChange(StreamObjective):
    """sum over ``layers`` of mean over tokens of ||x_{l+1} - x_l|| / n.

    ``norm`` "l2": the Euclidean norm over the D channels and n = sqrt(D), that is, the root mean
    square of the change. "l1": the sum of magnitudes and n = D. The division makes a weight mean
    the same for narrow and wide models. The penalty moves the function of these layers to other
    layers, so that they can be removed: TRSP, stage 2 (arXiv 2505.18232), which does not divide.
    """

    name = "layer_change"
    unit = "mean change, summed over layers"
    needs_base = False
    layers: tuple[int, ...] = Field(min_length=1)
    norm: Literal["l2", "l1"] = "l2"

    def of_streams(self, streams: Streams) -> Tensor:
        order = 2 if self.norm == "l2" else 1
        x = streams.student
        changes = [x[layer + 1].float() - x[layer].float() for layer in self.layers]
        norms = (c.norm(p=order, dim=-1) / c.shape[-1] ** (1 / order) for c in changes)
        return row_means(norms, streams.real).sum(0)
