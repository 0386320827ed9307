"""Remove blocks; optionally fold a correction into the feed-forward below them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from torch import Tensor

from layerwright.tasks.errors import InputError
from layerwright.tasks.hybrid.layer import HybridLayer
from layerwright.tasks.strategies.base import LayerSpec, Strategy
from layerwright.tasks.strategies.fitting.ridge import Sample, fit_ridge
from layerwright.tasks.strategies.fitting.stretch import Stretch


class Remove(Strategy):
    """The layers are gone: the stream passes unchanged (ShortGPT, arXiv 2403.03853).

    With ``patch``, the feed-forward of the layer below answers for them, at no new parameter:
    T = argmin ||M T - (Y - H)||² + ridge ||T||², where M is that feed-forward's output and H the
    stream that it is added to, both in the model as converted so far, and Y the base's output of
    the last removed layer; T is folded into the down projection, W' = Tᵀ W (ReplaceMe,
    arXiv 2505.02819, eq. 8). Deviations: the ridge is a share of each channel's variance instead
    of one constant, and is chosen on held-out rows. It needs a feed-forward below whose output is
    added to the stream as it is, as in all pre-norm families here.
    """

    name: ClassVar[str] = "remove"
    joins: ClassVar[bool] = True
    merges: ClassVar[bool] = True

    patch: bool = False

    def layer_spec(self, base_spec: LayerSpec) -> LayerSpec:
        return {"mixer": {"kind": "none"}, "feed_forward": {"kind": "none"}}

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
                f"removed layers {stretch.start} to {stretch.stop - 1} have no feed-forward below "
                "them that could take a patch",
                where=f"plan layer {stretch.start}",
                expected="a layer before them that keeps its feed-forward",
                remedy="remove them without `patch`, or use `linear`",
            )
        width = stretch.model.config.hidden_size
        name = f"model.layers.{stretch.start - 1}.mlp.down_proj"
        with stretch.at_work(below):
            map_DD, _, _ = fit_ridge(_samples(stretch, below), width, stretch.rows, intercept=False)
            projection = below.mlp.down_proj
            found = {f"{name}.weight": map_DD.T @ projection.weight.double()}
            if projection.bias is not None:
                found[f"{name}.bias"] = map_DD.T @ projection.bias.double()
        return found


def _samples(stretch: Stretch, below: HybridLayer) -> Iterator[Sample]:
    """Rows of M and of Y - H."""
    for batch in stretch.batches:
        stream = batch.before
        if below.self_attn is not None:
            normed = below.input_layernorm(stream)
            stream = stream + below.self_attn(normed, batch.placement)
        added = below.mlp(below.post_attention_layernorm(stream)).float()
        wanted = batch.target.float() - stream.float()
        ordinary = stretch.ordinary(batch)[..., None].float()
        for row in range(len(added)):
            yield batch.first_row + row, added[row], wanted[row], ordinary[row]
