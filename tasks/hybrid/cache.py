"""The cache of a hybrid model: one layer per spec, and the positions of padded batches.

Shapes: B batch, R is B or 1, T new tokens, K slots seen.
"""

from torch import Tensor
from transformers.cache_utils import Cache

from tasks.hybrid.mixers import MIXERS
from tasks.hybrid.placement import Placement

POSITION_BYTES = 8  # int64


class HybridCache(Cache):
    """Cache whose layers follow `config.layer_specs`.

    Attributes:
        seen_tokens: slots seen so far, padding included; what `get_seq_length` reports for any
            layer.
        positions: (B, K) int64 positions of these slots, -1 for padding, once a batch has padding;
            None before that, when every row is 0 .. seen_tokens - 1.
    """

    def __init__(self, config):
        self.layer_specs = [dict(spec) for spec in config.layer_specs]
        super().__init__(
            layers=[
                MIXERS[spec["mixer"]["kind"]].cache_layer(spec["mixer"])
                for spec in self.layer_specs
            ]
        )
        self.seen_tokens = 0
        self.positions: Tensor | None = None

    def update(self, key_states, value_states, layer_idx, positions=None):
        """Adds keys and values (B, G, T, d) at positions (B, T); see the layer's own `update`."""
        return self.layers[layer_idx].update(key_states, value_states, positions)

    def advance(self, placement: Placement, batch: int) -> None:
        """Records the slots of one finished forward pass."""
        self.seen_tokens += placement.positions.shape[1]
        if not placement.contiguous:
            self.positions = placement.key_positions.expand(batch, -1)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.seen_tokens

    def nbytes(self) -> int:
        """Bytes of all tensors held; equal to `predicted_kv_bytes` at the same number of slots.

        Positions are counted where they are held, which is in padded batches only.
        """
        tensors = [value for layer in self.layers for value in vars(layer).values()]
        storages = {
            value.untyped_storage().data_ptr(): value.untyped_storage().nbytes()
            for value in [*tensors, self.positions]
            if isinstance(value, Tensor)
        }
        return sum(storages.values())

    def reset(self) -> None:
        super().reset()
        self.seen_tokens, self.positions = 0, None

    def crop(self, tokens_to_remove: int) -> None:
        """Forgets the last -tokens_to_remove slots (a negative count, as in Transformers).

        Raises:
            ValueError: a positive count, which older versions read as a length.
            RuntimeError: a layer cannot bring back what it dropped; nothing is changed then.
        """
        if tokens_to_remove > 0:
            raise ValueError(f"crop takes a negative count of slots, got {tokens_to_remove}")
        if tokens_to_remove == 0:
            return
        kept = [i for i, layer in enumerate(self.layers) if not layer.is_croppable]
        if kept:
            raise RuntimeError(
                f"this cache cannot be cropped: layers {kept} have dropped tokens that a shorter "
                "context would need. Assisted and prompt-lookup decoding need capabilities with "
                "crop: true."
            )
        super().crop(tokens_to_remove)
        self.seen_tokens = max(self.seen_tokens - abs(tokens_to_remove), 0)
        if self.positions is not None:
            self.positions = self.positions[:, : self.seen_tokens]

    def reorder_cache(self, beam_idx: Tensor) -> None:
        super().reorder_cache(beam_idx)
        self._map_rows(lambda x: x[beam_idx.to(x.device)])

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self._map_rows(lambda x: x[indices.to(x.device)])

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        self._map_rows(lambda x: x.repeat_interleave(repeats, dim=0))

    def _map_rows(self, change) -> None:
        if self.positions is not None:
            self.positions = change(self.positions)


def predicted_kv_bytes(
    config, context_tokens: int, batch: int, element_bytes: int, padded: bool = False
) -> int:
    """Bytes that `HybridCache.nbytes` will report after `context_tokens` slots of `batch` rows.

    Args:
        config: HybridConfig.
        context_tokens: slots per row, padding included.
        batch: number of rows.
        element_bytes: size of one element of a key or value.
        padded: rows were padded, so positions are held too.
    """
    layers = sum(
        MIXERS[spec["mixer"]["kind"]].kv_bytes(
            config, spec["mixer"], context_tokens, batch, element_bytes, padded
        )
        for spec in config.layer_specs
    )
    return layers + (batch * context_tokens * POSITION_BYTES if padded else 0)
