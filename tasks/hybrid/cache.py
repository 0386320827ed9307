"""The KV cache of a hybrid model: one cache layer per layer, and the positions of padded batches.

Shapes: B batch, R is B or 1, T new tokens, K slots seen.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import LongTensor, Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from layerwright.tasks.hybrid.mixers import MIXERS
from layerwright.tasks.hybrid.mixers.attention import CacheSize
from layerwright.tasks.hybrid.mixers.prefill_selection import PrefillSelection, full_layer_count
from layerwright.tasks.hybrid.mixers.selective_cache import LazyQueue
from layerwright.tasks.hybrid.mixers.streaming import POSITION_BYTES
from layerwright.tasks.hybrid.placement import Placement


class HybridCache(Cache):
    """KV cache whose layers follow `config.layer_specs`.

    Args:
        selection: for each row of the prompts to come, the prefill_selection layers to trim, such
            as the `selection` of another cache. It replaces the selection by lazy ratio.

    Attributes:
        seen_tokens: slots seen so far, padding included; `get_seq_length` returns it for any layer.
        positions: (B, K) int64 positions of these slots, -1 for padding. None until a batch has
            padding; every row is then 0 .. seen_tokens - 1.

    Raises:
        ValueError: `selection` is not a possible selection for this model.
    """

    def __init__(self, config: Any, selection: Sequence[Sequence[int]] | None = None):
        self.layer_specs = [dict(spec) for spec in config.layer_specs]
        mixers = [spec["mixer"] for spec in self.layer_specs]
        super().__init__(layers=[MIXERS[mixer["kind"]].cache_layer(mixer) for mixer in mixers])
        self.seen_tokens = 0
        self.positions: Tensor | None = None
        self.queue: LazyQueue | None = None  # shared by all prefill_selection layers
        competing = [i for i, mixer in enumerate(mixers) if mixer["kind"] == PrefillSelection.kind]
        if competing:
            full_layers = full_layer_count(mixers[competing[0]], len(competing))
            layers: dict[int, Any] = {i: self.layers[i] for i in competing}
            self.queue = LazyQueue(layers, full_layers, selection)
        elif selection is not None:
            raise ValueError("selection was given, but this model has no prefill_selection layer")

    @property
    def selection(self) -> list[tuple[int, ...]]:
        """For each row, the layers that prefill selection trimmed; empty before a prompt."""
        return [] if self.queue is None else self.queue.selection()

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        layer_idx: int,
        positions: Tensor | None = None,
        **extra: Any,
    ) -> Any:
        """Adds keys and values (B, G, T, d) at positions (B, T) to one layer; `extra` is its own.

        Raises:
            RuntimeError: several tokens at once after a prompt from which layers were selected. The
                first caching layer raises it, before anything changes.
        """
        if self.queue is not None and self.seen_tokens > 0 and key_states.shape[2] > 1:
            raise RuntimeError(
                f"got {key_states.shape[2]} tokens at once after a prompt of {self.seen_tokens}: "
                "this model selects its full layers during prefill (prefill_selection), so later "
                "tokens must come one at a time. Pass the whole prompt in one forward pass with a "
                "new cache: no prefill_chunk_size, no assisted decoding, and read a continued "
                "conversation from its start."
            )
        layer: Any = self.layers[layer_idx]
        return layer.update(key_states, value_states, positions, **extra)

    def advance(self, placement: Placement, batch: int) -> None:
        """Records the slots of a finished forward pass."""
        self.seen_tokens += placement.positions.shape[1]
        if not placement.contiguous:
            self.positions = placement.key_positions.expand(batch, -1)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.seen_tokens

    def nbytes(self) -> int:
        """Bytes of all tensors in the cache; equals `predicted_kv_bytes` for the same slots."""
        tensors = [value for layer in self.layers for value in _tensors(layer)]
        tensors += [] if self.positions is None else [self.positions]
        storages = [tensor.untyped_storage() for tensor in tensors]
        return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())

    def reset(self) -> None:
        super().reset()
        self.seen_tokens, self.positions = 0, None

    def crop(self, tokens_to_remove: int) -> None:
        """Removes the last -tokens_to_remove slots (a negative count, as in Transformers).

        Raises:
            ValueError: the count is positive, which older Transformers versions read as a length.
            RuntimeError: a layer no longer has the tokens it would need; nothing is changed.
        """
        if tokens_to_remove > 0:
            raise ValueError(f"crop expects a negative number of slots, got {tokens_to_remove}")
        if tokens_to_remove == 0:
            return
        fixed = [i for i, layer in enumerate(self.layers) if not layer.is_croppable]
        if fixed:
            raise RuntimeError(
                f"this cache cannot be cropped: layers {fixed} have dropped tokens that a shorter "
                "context needs. Assisted and prompt-lookup decoding need a model whose "
                "capabilities have crop: true."
            )
        super().crop(tokens_to_remove)
        self.seen_tokens = max(self.seen_tokens + tokens_to_remove, 0)
        if self.positions is not None:
            self.positions = self.positions[:, : self.seen_tokens]

    def reorder_cache(self, beam_idx: LongTensor) -> None:
        super().reorder_cache(beam_idx)
        self._map_rows(lambda x: x[beam_idx.to(x.device)])

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self._map_rows(lambda x: x[indices.to(x.device)])

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        self._map_rows(lambda x: x.repeat_interleave(repeats, dim=0))

    def _map_rows(self, change: Callable[[Tensor], Tensor]) -> None:
        if self.positions is not None:
            self.positions = change(self.positions)


def _tensors(layer: Any) -> Iterator[Tensor]:
    """All tensors of a cache layer and of the cache layers inside it."""
    for held in vars(layer).values():
        for value in held if isinstance(held, list) else [held]:
            if isinstance(value, Tensor):
                yield value
            elif isinstance(value, CacheLayerMixin):
                yield from _tensors(value)


def predicted_kv_bytes(
    config: Any, context_tokens: int, batch: int, element_bytes: int, padded: bool = False
) -> int:
    """Bytes that `HybridCache.nbytes` returns at this cache size; arguments as in `CacheSize`."""
    size = CacheSize(context_tokens, batch, element_bytes, padded)
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for spec in config.layer_specs:
        by_kind.setdefault(spec["mixer"]["kind"], []).append(spec["mixer"])
    layers = sum(MIXERS[kind].all_kv_bytes(config, specs, size) for kind, specs in by_kind.items())
    return layers + (batch * context_tokens * POSITION_BYTES if padded else 0)
