"""What every strategy says: the layer's spec, its tensors, and the cache that it will need."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from tasks.hybrid.configuration import HybridConfig, normalised_spec
from tasks.hybrid.mixers import MIXERS
from tasks.registry import Component

LayerSpec = dict[str, Any]


class Strategy(Component):
    """One thing that a layer can become.

    A new transform of weights is one file here; a new kind of mixer needs a second one in
    tasks/hybrid/mixers/.
    """

    kind: ClassVar[str] = "strategy"
    room: ClassVar[str] = "tasks.strategies"

    def layer_spec(self, base_spec: LayerSpec) -> LayerSpec:
        """The hybrid model's spec for the layer, given the one that the layer has in the base."""
        raise NotImplementedError

    def transform(self, name: str, tensor: Tensor, layer: int) -> Tensor:
        """What is written in place of one tensor of the layer; the very same one by default.

        Tensors come one at a time, so that a conversion never holds a second model.

        Args:
            name: inside the layer, such as ``self_attn.q_proj.weight``.
            tensor: the base's, in the base's dtype.
            layer: index of the layer.
        """
        return tensor

    def reach_tokens(self) -> int | None:
        """How many tokens a query of the layer can see at most; None: all before it.

        Recall is tested on keys that lie further back than this.
        """
        return None

    def kv_bytes(
        self,
        config: HybridConfig,
        context_tokens: int,
        *,
        element_bytes: int,
        batch: int = 1,
        layer: int = 0,
    ) -> int:
        """Bytes of the converted layer's cache after ``context_tokens`` tokens of ``batch`` rows.

        Args:
            config: of the base as a hybrid.
            element_bytes: of one key element, such as 2 for bfloat16.
            layer: where layers of the base differ from each other.
        """
        spec = normalised_spec(self.layer_spec(config.layer_specs[layer]), layer)["mixer"]
        return MIXERS[spec["kind"]].kv_bytes(config, spec, context_tokens, batch, element_bytes)
