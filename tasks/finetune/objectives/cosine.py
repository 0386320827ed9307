"""The change of direction of the residual stream in each layer."""

from itertools import pairwise

import torch
from torch import Tensor

from layerwright.tasks.finetune.objectives.base import StreamObjective, Streams, row_means


class Cosine(StreamObjective):
    """sum over layers of mean over tokens of 1 - cos(x_l, x_{l-1}), x the residual stream.

    It makes the directions of consecutive hidden states similar. "Your Transformer is Secretly
    Linear" (arXiv 2405.12250) finds that pretraining with weight 0.5 lowers the linearity of the
    layers. Removed layers contribute 0.
    """

    name = "cosine"
    unit = "1 - cos, summed over layers"
    needs_base = False
    weight: float = 0.5

    def of_streams(self, streams: Streams) -> Tensor:
        similarity = torch.nn.functional.cosine_similarity
        pairs = pairwise(streams.student)
        turns = (1 - similarity(x.float(), y.float(), dim=-1) for x, y in pairs)
        return row_means(turns, streams.real).sum(0)
