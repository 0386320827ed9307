"""The change of direction of the residual stream in each layer."""

from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from layerwright.tasks.finetune.objectives.base import StreamObjective, Streams, mean_of_real


class Cosine(StreamObjective):
    """sum over layers of mean over tokens of 1 - cos(x_l, x_{l-1}), x the residual stream.

    It makes the directions of consecutive hidden states similar. "Your Transformer is Secretly
    Linear" (arXiv 2405.12250) finds that pretraining with weight 0.5 lowers the linearity of the
    layers. Removed layers contribute 0.
    """

    name: ClassVar[str] = "cosine"
    unit: ClassVar[str] = "1 - cos, summed over layers"
    needs_base: ClassVar[bool] = False

    weight: float = 0.5

    def of_streams(self, streams: Streams) -> Tensor:
        turns = [
            mean_of_real(
                1 - torch.nn.functional.cosine_similarity(x.float(), y.float(), dim=-1),
                streams.real,
            )
            for x, y in pairwise(streams.student)
        ]
        return torch.stack(turns).sum(0)
