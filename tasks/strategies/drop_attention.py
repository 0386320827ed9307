"""Drop the attention of a layer and keep its feed-forward."""

from __future__ import annotations

from typing import ClassVar

from layerwright.tasks.strategies.base import LayerSpec, Strategy


class DropAttention(Strategy):
    """The layer is x + feed_forward(norm(x)): no queries, keys and values, and nothing cached.

    The cheapest depth cut: attention sublayers are more redundant than whole blocks (LLM-Drop,
    arXiv 2406.15786).
    """

    name: ClassVar[str] = "drop_attention"

    def layer_spec(self, base_spec: LayerSpec) -> LayerSpec:
        return {**base_spec, "mixer": {"kind": "none"}}
