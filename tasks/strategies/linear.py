"""Replaces a layer, or a run of layers, by one linear map."""

from collections.abc import Sequence

from torch import Tensor

from layerwright.tasks.strategies.base import REMOVED, LayerSpec, Strategy
from layerwright.tasks.strategies.fitting.ridge import fit_ridge
from layerwright.tasks.strategies.fitting.stretch import Stretch


class Linear(Strategy):
    """The run of layers becomes x + W x + b at its first layer; its other layers are removed.

    W, b = argmin ||X W + b - (Y - X)||² + ridge ||W||². X is the run's input in the model as
    converted so far, and Y the output of its last layer in the base, so the map also corrects the
    loss of the layers below. The ridge is chosen on ordinary tokens of held-out rows. Your
    Transformer is Secretly Linear (arXiv 2405.12250, section 5) fits on the base's own residual
    stream.
    """

    name = "linear"
    joins = True

    def layer_spec(self, base_spec: LayerSpec) -> LayerSpec:
        return {"mixer": {"kind": "none"}, "feed_forward": {"kind": "linear"}}

    def layer_specs(self, base_specs: Sequence[LayerSpec]) -> list[LayerSpec]:
        return [self.layer_spec(base_specs[0]), *[REMOVED] * (len(base_specs) - 1)]

    @property
    def fits(self) -> bool:
        return True

    def fit(self, stretch: Stretch) -> dict[str, Tensor]:
        width = stretch.model.config.hidden_size
        samples = stretch.samples(lambda b: (b.x.float(), b.target.float() - b.x.float()))
        weight_DD, bias_D, _ = fit_ridge(samples, width, stretch.rows, intercept=True)
        name = f"model.layers.{stretch.start}.linear"
        return {f"{name}.weight": weight_DD.T.contiguous(), f"{name}.bias": bias_D}
