"""Cache layers whose tensors keep their size and place, for decoding token by token.

Shapes: B batch, G key/value heads, K slots held, N slots of the ring, d head size, R is B or 1.
"""

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from layerwright.kernels.ring import Ring, ring_slots


class FixedLayer(CacheLayerMixin):
    """Keys and values in a ring, where a new token of each row takes the place of one out of sight.

    Args:
        keys, values: (B, G, K, d), what later tokens can see.
        positions_RK: their positions, -1 for padding.
        sinks, window: what a token can see.
        tokens: positions that there will be at most.

    Attributes:
        ring: of `sinks` + `window` slots, or of `tokens` where that is less.
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
        # padding goes to one slot more, which is cut off
        places = ring_slots(positions_RK, kept, slots).masked_fill(positions_RK < 0, slots)
        there = positions_RK.new_full((len(positions_RK), slots + 1), -1)
        there.scatter_(1, places, positions_RK)
        index = places[:, None, :, None].expand(B, G, -1, d)
        held = (
            x.new_zeros(B, G, slots + 1, d).scatter_(2, index, x)[:, :, :slots].contiguous()
            for x in (keys, values)
        )
        self.ring = Ring(*held, there[:, :slots].contiguous(), kept)
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing: the layer is made from one that is filled."""

    def update(self, key_states: Tensor, value_states: Tensor, positions: Tensor):
        """Writes a token of each row (B, G, 1, d) at (R, 1); returns all that the ring holds."""
        self.ring.write(key_states, value_states, positions)
        return self.ring.keys, self.ring.values, self.ring.positions

    def get_seq_length(self) -> int:
        return int(self.ring.positions.amax()) + 1

    def get_max_length(self) -> int:
        return -1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.ring.keys.shape[2], 0

    def tensors(self) -> list[Tensor]:
        """All that a token changes."""
        return list(self.ring[:3])


class FixedRecurrentLayer(FixedLayer):
    """The same with the states of a recurrence, which are updated where they lie.

    Args:
        state, slot_keys: as in RecurrentCacheLayer; the others as in FixedLayer.

    Attributes:
        shares: alpha and beta of each query head (2, H), once the mixer has decoded a token.
    """

    def __init__(self, *held, state: Tensor, slot_keys: Tensor | None):
        super().__init__(*held)
        self.state = state.clone(memory_format=torch.contiguous_format)
        self.slot_keys = self.shares = None
        if slot_keys is not None:
            self.slot_keys = slot_keys.clone(memory_format=torch.contiguous_format)

    def tensors(self) -> list[Tensor]:
        states = [x for x in (self.state, self.slot_keys) if x is not None]
        return [*super().tensors(), *states]
