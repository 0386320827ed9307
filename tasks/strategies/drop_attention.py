"""Removes the attention of a layer and keeps its feed-forward."""

from layerwright.tasks.strategies.base import LayerSpec, Strategy


class DropAttention(Strategy):
    """The layer becomes x + feed_forward(norm(x)), without attention and KV cache.

    Attention sublayers are more redundant than whole blocks (LLM-Drop, arXiv 2406.15786).
    """

    name = "drop_attention"

    def layer_spec(self, base_spec: LayerSpec) -> LayerSpec:
        return {**base_spec, "mixer": {"kind": "none"}}
