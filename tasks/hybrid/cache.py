"""The cache of a hybrid model: one layer per spec, and the positions of padded batches.

Shapes: B batch, R is B or 1, T new tokens, K slots seen.
"""

from collections.abc import Iterator, Sequence

from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from layerwright.tasks.hybrid.mixers import MIXERS
from layerwright.tasks.hybrid.mixers.lazy_queue import LazyQueue
from layerwright.tasks.hybrid.mixers.prefill_selection import PrefillSelection, full_layer_count
from layerwright.tasks.hybrid.placement import Placement

POSITION_BYTES = 8  # int64


class HybridCache(Cache):
    """Cache whose layers follow `config.layer_specs`.

    Args:
        config: HybridConfig.
        selection: per row of the prompts to come, the layers of prefill selection that are to be
            trimmed, in place of a decision by laziness; such as another cache's `selection`.

    Attributes:
        seen_tokens: slots seen so far, padding included; what `get_seq_length` reports for any
            layer.
        positions: (B, K) int64 positions of these slots, -1 for padding, once a batch has padding;
            None before that, when every row is 0 .. seen_tokens - 1.

    Raises:
        ValueError: a selection that could not have been decided.
    """

    def __init__(self, config, selection: Sequence[Sequence[int]] | None = None):
        self.layer_specs = [dict(spec) for spec in config.layer_specs]
        super().__init__(
            layers=[
                MIXERS[spec["mixer"]["kind"]].cache_layer(spec["mixer"])
                for spec in self.layer_specs
            ]
        )
        self.seen_tokens = 0
        self.positions: Tensor | None = None
        self.queue = self._queue(selection)

    def _queue(self, selection: Sequence[Sequence[int]] | None) -> LazyQueue | None:
        """The queue that spans the layers of prefill selection, None where there are none."""
        mixers = {i: spec["mixer"] for i, spec in enumerate(self.layer_specs)}
        found = [i for i in mixers if mixers[i]["kind"] == PrefillSelection.kind]
        if found:
            full_layers = full_layer_count(mixers[found[0]], len(found))
            return LazyQueue({i: self.layers[i] for i in found}, full_layers, selection)
        if selection is not None:
            raise ValueError("a selection is for models with layers of prefill selection only")
        return None

    @property
    def selection(self) -> list[tuple[int, ...]]:
        """Per row, the layers that prefill selection trimmed; no rows before there is a prompt."""
        return [] if self.queue is None else self.queue.selection()

    def update(self, key_states, value_states, layer_idx, positions=None, **extra):
        """Adds keys and values (B, G, T, d) at positions (B, T), and what else the layer takes.

        Raises:
            RuntimeError: several tokens after a prompt from which layers were selected; raised by
                the first layer that caches, before anything changes.
        """
        if self.queue is not None and self.seen_tokens > 0 and key_states.shape[2] > 1:
            raise RuntimeError(
                f"{key_states.shape[2]} tokens at once after a prompt of {self.seen_tokens}: this "
                "model selects its full layers while it reads the prompt (prefill_selection), so "
                "what follows must come token by token. Give the whole prompt in one forward pass "
                "with a new cache: no prefill_chunk_size, no assisted decoding, and a conversation "
                "that goes on is read again from its start."
            )
        return self.layers[layer_idx].update(key_states, value_states, positions, **extra)

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
        tensors = [value for layer in self.layers for value in _tensors(layer)]
        if self.positions is not None:
            tensors.append(self.positions)
        storages = {
            value.untyped_storage().data_ptr(): value.untyped_storage().nbytes()
            for value in tensors
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


def _tensors(layer: CacheLayerMixin) -> Iterator[Tensor]:
    """All tensors of a cache layer and of the layers that it is made of."""
    for held in vars(layer).values():
        for value in held if isinstance(held, list) else [held]:
            if isinstance(value, Tensor):
                yield value
            elif isinstance(value, CacheLayerMixin):
                yield from _tensors(value)


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
    mixers = [spec["mixer"] for spec in config.layer_specs]
    layers = sum(
        MIXERS[kind].all_kv_bytes(
            config,
            [mixer for mixer in mixers if mixer["kind"] == kind],
            context_tokens,
            batch,
            element_bytes,
            padded,
        )
        for kind in {mixer["kind"] for mixer in mixers}
    )
    return layers + (batch * context_tokens * POSITION_BYTES if padded else 0)
