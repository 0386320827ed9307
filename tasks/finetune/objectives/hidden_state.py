"""The error of the residual stream after each layer against the base's."""

from typing import ClassVar

import torch
from torch import Tensor

from layerwright.tasks.finetune.objectives.base import StreamObjective, Streams, mean_of_real


class HiddenState(StreamObjective):
    """mean over layers and tokens of ||x - x*||² / ||x*||², x the stream after a layer.

    The error is relative to the energy of each token, because the first token has hundreds of times
    the energy of the others and would dominate the loss. The stream before a removed layer is not
    compared: a strategy that replaces a run of layers only needs to match the end of the run.
    Hidden-state distillation as in RADLADS (arXiv 2505.03005, step 1), but through the whole model
    instead of layer by layer.
    """

    name: ClassVar[str] = "hidden_state"
    unit: ClassVar[str] = "share of energy"

    def of_streams(self, streams: Streams) -> Tensor:
        assert streams.base is not None
        compared = [i for i in range(1, len(streams.student)) if i not in streams.removed]
        values = []
        for layer in compared:
            x, target = streams.student[layer].float(), streams.base[layer].float()
            error_BT = (x - target).square().sum(-1)
            energy_BT = target.square().sum(-1).clamp_min(1e-12)
            values.append(mean_of_real(error_BT / energy_BT, streams.real))
        return torch.stack(values).mean(0)
