"""The error of the residual stream after each layer against the base's."""

from torch import Tensor

from layerwright.tasks.finetune.objectives.base import StreamObjective, Streams, row_means


class HiddenState(StreamObjective):
    """mean over layers and tokens of ||x - x*||² / ||x*||², x the stream after a layer.

    The error is relative to the energy of each token, because the first token has hundreds of times
    the energy of the others and would dominate the loss. The stream before a removed layer is not
    compared: a strategy that replaces a run of layers only needs to match the end of the run.
    Hidden-state distillation as in RADLADS (arXiv 2505.03005, step 1), but through the whole model
    instead of layer by layer.
    """

    name = "hidden_state"
    unit = "share of energy"

    def of_streams(self, streams: Streams) -> Tensor:
        assert streams.base is not None
        values = []
        for layer, (x, target) in enumerate(zip(streams.student, streams.base, strict=True)):
            if layer and layer not in streams.removed:
                error_BT = (x.float() - target.float()).square().sum(-1)
                values.append(error_BT / target.float().square().sum(-1).clamp_min(1e-12))
        return row_means(values, streams.real).mean(0)
