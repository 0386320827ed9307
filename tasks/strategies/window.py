"""Window attention: a sliding window and a learned sink logit per head, which stock engines run."""

from typing import Literal

from pydantic import Field
from torch import Tensor

from layerwright.tasks.strategies.base import LayerSpec, Strategy
from layerwright.tasks.strategies.fitting.sink_logits import fitted_logits, mean_logits
from layerwright.tasks.strategies.fitting.stretch import Stretch


class Window(Strategy):
    """The layer attends to the last ``window`` tokens; a logit per head stands for the first ones.

    The logit is one more term of the softmax's denominator, with the value zero, so that a query
    whose keys fit badly can ignore them. It replaces the sink tokens of `streaming`, which stock
    engines do not have: a model with these layers is exported as GraniteSWA and needs no code of
    ours. The other weights do not change. The KV cache is limited to window - 1 tokens.

    Attributes:
        window: number of last tokens to attend to, the query's own included.
        logits: how the logits are set before healing. "mean": the mean log-sum-exp of the first
            four tokens' scores. "fitted": from there to the least difference from full attention's
            output on the calibration rows, layer by layer.
    """

    name = "window"

    window: int = Field(default=1024, ge=1)
    logits: Literal["mean", "fitted"] = "fitted"

    def layer_spec(self, base_spec: LayerSpec) -> LayerSpec:
        return {**base_spec, "mixer": {"kind": "window", "window": self.window}}

    @property
    def fits(self) -> bool:
        return True

    def fit(self, stretch: Stretch) -> dict[str, Tensor]:
        set_logits = fitted_logits if self.logits == "fitted" else mean_logits
        name = f"model.layers.{stretch.start}.self_attn.sinks"
        return {name: set_logits(stretch, self.window)}
