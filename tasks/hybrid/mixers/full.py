"""Full causal attention: what every layer of the base is. Its cache grows with the context.

Shapes: B batch, T new tokens, K keys, H query heads, G key/value heads, d head size.
"""

import torch.nn.functional as F
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from layerwright.kernels.streaming_attention import streaming_attention
from layerwright.tasks.hybrid.mixers.attention import (
    AttentionMixer,
    key_value_bytes,
    one_query_attention,
)
from layerwright.tasks.hybrid.placement import Placement

EVERYTHING = 1 << 62  # a window that no position reaches


class FullCacheLayer(DynamicLayer):
    """Keys and values (B, G, K, d) of every slot seen so far."""

    def update(self, key_states, value_states, positions=None):
        """Appends; returns all keys, all values and None: positions are the placement's."""
        keys, values = super().update(key_states, value_states)
        return keys, values, None

    def reset(self) -> None:
        """Drops everything; Transformers 5.17 would leave zeros of the old length behind."""
        self.keys = self.values = None
        self.is_initialized = False


class FullAttention(AttentionMixer):
    """softmax(q kᵀ / sqrt(d)) v over all earlier tokens."""

    kind = "full"
    croppable = True

    def attend(
        self, q_BHTd: Tensor, k_BGTd: Tensor, v_BGTd: Tensor, placement: Placement, cache=None
    ) -> Tensor:
        k, v, k_positions = k_BGTd, v_BGTd, None
        if cache is not None:
            places = placement.stored_positions
            k, v, k_positions = cache.update(k, v, self.layer_idx, positions=places)
        if k_positions is not None:  # slots in an order of their own
            return streaming_attention(
                q_BHTd, k, v, placement.positions, k_positions, sinks=0, window=EVERYTHING
            )
        mask = placement.causal_mask
        if q_BHTd.shape[2] == 1:
            return one_query_attention(q_BHTd, k, v, mask)
        grouped = q_BHTd.shape[1] != k.shape[1]
        return F.scaled_dot_product_attention(
            q_BHTd, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=grouped
        )

    @classmethod
    def cache_layer(cls, spec) -> FullCacheLayer:
        return FullCacheLayer()

    @classmethod
    def kv_bytes(cls, config, spec, context_tokens, batch, element_bytes, padded=False) -> int:
        return batch * context_tokens * key_value_bytes(config, element_bytes)
