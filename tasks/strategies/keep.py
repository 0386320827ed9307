"""Keeps the layer as it is in the base."""

from layerwright.tasks.strategies.base import LayerSpec, Strategy


class Keep(Strategy):
    """The layer does not change: no damage and no saving."""

    name = "keep"

    def layer_spec(self, base_spec: LayerSpec) -> LayerSpec:
        return base_spec
