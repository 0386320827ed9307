"""Cache layers with tensors of fixed size, updated in place, for token-by-token decoding.

Shapes: B batch, G key/value heads, K slots held, N slots of the ring, d head size, R is B or 1.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from layerwright.kernels.ring import Ring, ring_slots


class FixedLayer(CacheLayerMixin):
    """Keys and values in a ring buffer; a new token replaces one outside the window.

    Args:
        keys, values: (B, G, K, d), the tokens that later tokens can see.
        positions_RK: their positions, -1 for padding.
        sinks, window: what a token can see.
        tokens: largest number of positions in the context.

    Attributes:
        ring: has `sinks` + `window` slots, or `tokens` if that is less.
    """

    def __init__(
        self,
        keys: Tensor,
        values: Tensor,
        positions_RK: Tensor,
        sinks: int,
        window: int,
        tokens: int,
    ):
        super().__init__()
        B, G, _, d = keys.shape
        slots = min(sinks + window, tokens)
        kept = sinks if slots < tokens else slots
        # padding is written to one extra slot, which is cut off
        slots_RK = ring_slots(positions_RK, kept, slots).masked_fill(positions_RK < 0, slots)
        ring_positions = positions_RK.new_full((len(positions_RK), slots + 1), -1)
        ring_positions.scatter_(1, slots_RK, positions_RK)
        index = slots_RK[:, None, :, None].expand(B, G, -1, d)

        def in_ring(x: Tensor) -> Tensor:
            ring = x.new_zeros(B, G, slots + 1, d).scatter_(2, index, x)
            return ring[:, :, :slots].contiguous()

        positions = ring_positions[:, :slots].contiguous()
        self.ring = Ring(in_ring(keys), in_ring(values), positions, kept)
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        pass  # the layer is created from a filled one

    def update(  # type: ignore[override] # Transformers' layers return keys and values only
        self, key_states: Tensor, value_states: Tensor, positions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Writes one token per row (B, G, 1, d) at positions (R, 1); returns the whole ring."""
        self.ring.write(key_states, value_states, positions)
        return self.ring.keys, self.ring.values, self.ring.positions

    def get_seq_length(self) -> int:
        return int(self.ring.positions.amax()) + 1

    def get_max_length(self) -> int:
        return -1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.ring.keys.shape[2], 0

    def tensors(self) -> list[Tensor]:
        """All tensors that a new token changes."""
        return list(self.ring[:3])


class FixedRecurrentLayer(FixedLayer):
    """A FixedLayer with the states of a recurrence, which are updated in place.

    Attributes:
        state, slot_keys: as in RecurrentCacheLayer.
        shares: alpha and beta of each query head (2, H), set by the first decoded token.
    """

    shares: Tensor | None = None

    def __init__(self, *states: Any, state: Tensor, slot_keys: Tensor | None) -> None:
        super().__init__(*states)
        layout = torch.contiguous_format
        self.state = state.clone(memory_format=layout)
        self.slot_keys = None if slot_keys is None else slot_keys.clone(memory_format=layout)

    def tensors(self) -> list[Tensor]:
        return [*super().tensors(), *(x for x in (self.state, self.slot_keys) if x is not None)]
