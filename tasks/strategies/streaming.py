"""Streaming attention: attention sinks and a sliding window, at their original positions."""

from pydantic import Field

from layerwright.tasks.strategies.base import LayerSpec, Strategy


class Streaming(Strategy):
    """The layer attends to the first ``sinks`` and the last ``window`` tokens only.

    Key j is visible to query i if 0 <= j <= i and (i - j < window or j < sinks); the window
    includes the query's own position. The weights do not change. The KV cache is limited to sinks +
    window - 1 tokens. StreamingLLM (arXiv 2309.17453) without its re-numbering of positions, as
    LightTransfer uses it (arXiv 2410.13846, defaults from its section 4).
    """

    name = "streaming"

    sinks: int = Field(default=4, ge=0)
    window: int = Field(default=1020, ge=1)

    def layer_spec(self, base_spec: LayerSpec) -> LayerSpec:
        mixer = {"kind": "streaming", "sinks": self.sinks, "window": self.window}
        return {**base_spec, "mixer": mixer}
