"""Removes layers; optionally folds a correction into the feed-forward below."""

from functools import partial

from torch import Tensor

from layerwright.tasks.errors import InputError
from layerwright.tasks.hybrid.layer import HybridLayer
from layerwright.tasks.strategies.base import REMOVED, LayerSpec, Strategy
from layerwright.tasks.strategies.fitting.ridge import fit_ridge
from layerwright.tasks.strategies.fitting.stretch import Stretch, StretchBatch


class Remove(Strategy):
    """The layers are removed; the residual stream passes unchanged (ShortGPT, arXiv 2403.03853).

    With ``patch``, the feed-forward of the layer below compensates, without new parameters:
    T = argmin ||M T - (Y - H)||² + ridge ||T||². M is the feed-forward's output and H the residual
    stream that it is added to, both in the model as converted so far; Y is the base's output of the
    last removed layer. T is folded into the down projection, W' = Tᵀ W (ReplaceMe, arXiv
    2505.02819, eq. 8). Differences from the paper: the ridge is a share of each channel's variance
    instead of one constant, and is chosen on held-out rows. The layer below must add its
    feed-forward's output to the residual stream directly, as all pre-norm families here do.
    """

    name = "remove"
    joins = True
    merges = True

    patch: bool = False

    def layer_spec(self, base_spec: LayerSpec) -> LayerSpec:
        return REMOVED

    @property
    def fits(self) -> bool:
        return self.patch

    @property
    def patches_below(self) -> bool:
        return self.patch

    def fit(self, stretch: Stretch) -> dict[str, Tensor]:
        below = stretch.layer_before
        if below is None or below.mlp is None:
            raise InputError(
                f"there is no feed-forward below the removed layers {stretch.start} to "
                f"{stretch.stop - 1} that could take a patch",
                where=f"plan layer {stretch.start}",
                expected="a layer below them that keeps its feed-forward",
                remedy="remove them without `patch`, or use `linear`",
            )
        width = stretch.model.config.hidden_size
        name = f"model.layers.{stretch.start - 1}.mlp.down_proj"
        with stretch.at_work(below):
            samples = stretch.samples(partial(_output_and_missing, below))
            map_DD, _, _ = fit_ridge(samples, width, stretch.rows, intercept=False)
            projection = below.mlp.down_proj
            tensors = {f"{name}.weight": map_DD.T @ projection.weight.double()}
            if projection.bias is not None:
                tensors[f"{name}.bias"] = map_DD.T @ projection.bias.double()
        return tensors


def _output_and_missing(below: HybridLayer, batch: StretchBatch) -> tuple[Tensor, Tensor]:
    """Inputs M and outputs Y - H of the fit."""
    assert batch.before is not None  # there is a layer below
    stream = batch.before
    if below.self_attn is not None:
        stream = stream + below.self_attn(below.input_layernorm(stream), batch.placement)
    output = below.mlp(below.post_attention_layernorm(stream)).float()
    return output, batch.target.float() - stream.float()
