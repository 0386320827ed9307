"""Full causal attention, as in the base model; its KV cache grows with the context.

Shapes: B batch, T new tokens, K keys, H query heads, G key/value heads, d head size.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from layerwright.kernels.streaming_attention import streaming_attention
from layerwright.tasks.hybrid.mixers.attention import (
    AttentionMixer,
    CacheSize,
    key_value_bytes,
    one_query_attention,
)
from layerwright.tasks.hybrid.placement import Placement

UNLIMITED = 1 << 62  # a window larger than any context


class FullCacheLayer(DynamicLayer):
    """Keys and values (B, G, K, d) of every slot seen so far."""

    keys: Any  # None until the first update
    values: Any

    def update(  # type: ignore[override] # Transformers' layers return keys and values only
        self, key_states: Tensor, value_states: Tensor, positions: Tensor | None = None
    ) -> tuple[Tensor, Tensor, None]:
        """Appends; returns all keys, all values, and None: the placement has the positions."""
        keys, values = super().update(key_states, value_states)
        return keys, values, None

    def reset(self) -> None:
        """Drops all tokens; Transformers 5.17 would keep zeros of the old length."""
        self.keys = self.values = None
        self.is_initialized = False


class FullAttention(AttentionMixer):
    """softmax(q kᵀ / sqrt(d)) v over all earlier tokens."""

    kind = "full"
    croppable = True

    def attend(
        self, q_BHTd: Tensor, k_BGTd: Tensor, v_BGTd: Tensor, placement: Placement, cache: Any
    ) -> Tensor:
        k, v, k_positions = k_BGTd, v_BGTd, None
        if cache is not None:
            k, v, k_positions = cache.update(k, v, self.layer_idx, placement.stored_positions)
        if k_positions is not None:  # a fixed cache, whose ring is not in order of position
            return streaming_attention(q_BHTd, k, v, placement.positions, k_positions, 0, UNLIMITED)
        mask = placement.causal_mask
        if q_BHTd.shape[2] == 1:
            return one_query_attention(q_BHTd, k, v, mask)
        grouped = q_BHTd.shape[1] != k.shape[1]
        return F.scaled_dot_product_attention(
            q_BHTd, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=grouped
        )

    @classmethod
    def cache_layer(cls, spec: dict[str, Any]) -> Any:
        return FullCacheLayer()

    @classmethod
    def kv_bytes(cls, config: Any, spec: dict[str, Any], size: CacheSize) -> int:
        return size.batch * size.context_tokens * key_value_bytes(config, size.element_bytes)
