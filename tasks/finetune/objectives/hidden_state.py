"""The residual stream after each layer against the base's."""

from typing import ClassVar

import torch
from torch import Tensor

from layerwright.tasks.finetune.objectives.base import StreamObjective, Streams, mean_of_real


class HiddenState(StreamObjective):
    """mean over layers and tokens of ||x - x*||² / ||x*||², x the stream after a layer.

    Relative to each token's own energy: the first token's, hundreds of times the others', would
    else be all that counts. The stream in front of a removed layer is left out: what stands in for
    a run of layers answers for the end of the run alone. Hidden-state distillation as in RADLADS
    (arXiv 2505.03005, step 1), through the whole model instead of layer by layer.
    """

    name: ClassVar[str] = "hidden_state"
    unit: ClassVar[str] = "share of energy"

    def of_streams(self, streams: Streams) -> Tensor:
        assert streams.base is not None
        compared = [i for i in range(1, len(streams.student)) if i not in streams.removed]
        values = []
        for layer in compared:
            x, wanted = streams.student[layer].float(), streams.base[layer].float()
            missed_BT = (x - wanted).square().sum(-1)
            energy_BT = wanted.square().sum(-1).clamp_min(1e-12)
            values.append(mean_of_real(missed_BT / energy_BT, streams.real))
        return torch.stack(values).mean(0)
