"""Selects lazy layers for each prompt during prefill."""

from pydantic import Field

from layerwright.tasks.strategies.base import LayerSpec, Strategy


class PrefillSelection(Strategy):
    """The layer competes with all layers of this strategy for ``full_layers`` full KV caches.

    The prompt is read with full attention. The ``full_layers`` layers with the smallest lazy ratio
    over the prompt's last ``last_queries`` queries keep all its keys; the other layers keep
    ``sinks`` and ``window`` for the tokens to come. The weights do not change, and neither does a
    pass without a cache, such as for perplexity: the cost shows in generation only. LightTransfer's
    test mode (arXiv 2410.13846) with the defaults of its section 4.

    ``full_layers`` None, the default, is half of the competing layers, rounded up. It is the
    paper's choice on LongBench (three quarters for needle tasks) and does not depend on the number
    of competing layers.
    """

    name = "prefill_selection"

    full_layers: int | None = Field(default=None, ge=0)
    sinks: int = Field(default=4, ge=0)
    window: int = Field(default=1020, ge=1)
    last_queries: int = Field(default=32, ge=1)

    def layer_spec(self, base_spec: LayerSpec) -> LayerSpec:
        return {**base_spec, "mixer": {"kind": self.name, **self.model_dump()}}
