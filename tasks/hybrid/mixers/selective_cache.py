"""Cache layers that compete, while a prompt is read, for the right to keep all of its keys.

Shapes: B batch, G key/value heads, T new tokens, K slots, d head size; rows are some of the B.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from layerwright.tasks.hybrid.mixers.full import FullCacheLayer
from layerwright.tasks.hybrid.mixers.lazy_queue import LazyQueue
from layerwright.tasks.hybrid.mixers.streaming import StreamingCacheLayer


class TrimmedRows(StreamingCacheLayer):
    """Rows that kept the sinks and the last window - 1 tokens of a prompt."""

    def trim(
        self, keys: Tensor, values: Tensor, positions: Tensor | None, rows: Sequence[int]
    ) -> None:
        """Takes `rows` of a prompt's keys and values (B, G, K, d), at positions (B, K) or None.

        All are cut before the rows are chosen, so that no copy is longer than what is kept.
        """
        self.lazy_initialization(keys, values)
        self.cumulative_length = keys.shape[2]
        if positions is None:
            self.keys, self.values = self._ends(keys), self._ends(values)
        else:
            self._keep(keys, values, positions)
        self.batch_select_indices(torch.tensor(rows))

    def join(self, other: "TrimmedRows", order: Sequence[int]) -> None:
        """Takes in other rows of the same prompt, and brings them all into `order`."""
        self.keys = torch.cat([self.keys, other.keys])[order]
        self.values = torch.cat([self.values, other.values])[order]
        if self.positions is not None:
            self.positions = torch.cat([self.positions, other.positions])[order]


class VisibleRows(NamedTuple):
    """What the next token of some rows sees."""

    rows: list[int] | None  # None: the whole batch
    keys: Tensor  # (rows, G, K, d)
    values: Tensor
    positions: Tensor | None  # (rows, K) of trimmed rows in a padded batch


class SelectiveCacheLayer(CacheLayerMixin):
    """All keys and values of some rows, and those of sinks and window of the others.

    Attributes:
        full, trimmed: the two parts.
        full_rows, trimmed_rows: the rows of the batch that each holds, ascending; on the host,
            because they decide on shapes.
        batch: number of rows, 0 before a prompt.
        index, queue: which layer this is, and who decides; set by the queue.
    """

    supports_early_init = False

    def __init__(self, sinks: int, window: int):
        super().__init__()
        self.sinks, self.window = sinks, window
        self.index: int | None = None
        self.queue: LazyQueue | None = None
        self._clear()

    def _clear(self) -> None:
        self.full, self.trimmed = FullCacheLayer(), TrimmedRows(self.sinks, self.window)
        self.full_rows: tuple[int, ...] = ()
        self.trimmed_rows: tuple[int, ...] = ()
        self.batch = 0
        self.is_initialized = False

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.batch, self.is_initialized = key_states.shape[0], True

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        positions: Tensor | None = None,
        lazy_ratios: Sequence[float] | None = None,
    ) -> list[VisibleRows | None]:
        """Takes a prompt, upon which rows here or in other layers are trimmed; or one more token.

        Args:
            key_states, value_states: (B, G, T, d); T is 1 after the prompt.
            positions: (B, T), -1 for padding; None while no row was ever padded.
            lazy_ratios: of the prompt in each row; where left out, all layers count as alike.

        Returns:
            After the prompt: what the token sees in the full rows and in the trimmed ones, None
            where there are no such rows.
        """
        if self.is_initialized:
            states = (key_states, value_states, positions)
            return [
                self._extend(self.full, self.full_rows, *states),
                self._extend(self.trimmed, self.trimmed_rows, *states),
            ]
        self.lazy_initialization(key_states, value_states)
        leaving = self.queue.enter(self.index, lazy_ratios or [1.0] * self.batch)
        own = leaving.pop(self.index, [])
        for layer, rows in leaving.items():  # first, so that there is room for this layer's keys
            self.queue.layers[layer].trim(rows, positions)
        if own:
            self._add_trimmed(own, key_states, value_states, positions, own)
        self.full_rows = tuple(row for row in range(self.batch) if row not in own)
        if self.full_rows:
            self._extend(self.full, self.full_rows, key_states, value_states, None)
        return [None, None]

    def _extend(self, part, rows, keys, values, positions) -> VisibleRows | None:
        """Gives the rows' new keys, values and positions to the part that holds them."""
        if not rows:
            return None
        if len(rows) == self.batch:
            return VisibleRows(None, *part.update(keys, values, positions))
        index = list(rows)
        positions = None if positions is None else positions[index]
        return VisibleRows(index, *part.update(keys[index], values[index], positions))

    def trim(self, rows: Sequence[int], positions: Tensor | None) -> None:
        """Cuts rows that were full to sinks and window; the memory of the rest is free at once.

        Args:
            rows: indices in the batch, ascending.
            positions: (B, K) of the prompt, -1 for padding; None where no row is padded.
        """
        slots = [self.full_rows.index(row) for row in rows]
        if positions is not None:
            positions = positions.to(self.full.keys.device)[list(self.full_rows)]
        self._add_trimmed(rows, self.full.keys, self.full.values, positions, slots)
        remaining = [slot for slot in range(len(self.full_rows)) if slot not in slots]
        _keep_slots(self.full, remaining)
        self.full_rows = tuple(self.full_rows[slot] for slot in remaining)

    def _add_trimmed(self, rows, keys, values, positions, slots) -> None:
        """Adds rows of the batch, which stand at `slots` of the keys, to the trimmed ones."""
        added = TrimmedRows(self.sinks, self.window)
        added.trim(keys, values, positions, slots)
        joined = [*self.trimmed_rows, *rows]
        if self.trimmed_rows:
            self.trimmed.join(added, sorted(range(len(joined)), key=joined.__getitem__))
        else:
            self.trimmed = added
        self.trimmed_rows = tuple(sorted(joined))

    def get_seq_length(self) -> int:
        return max(self.full.get_seq_length(), self.trimmed.get_seq_length())

    def get_max_length(self) -> int:
        return -1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def reset(self) -> None:
        self._clear()
        self.queue.reset()

    def crop(self, tokens_to_remove: int) -> None:
        """Refused, except for no tokens: what was trimmed is gone.

        Raises:
            RuntimeError: always, unless tokens_to_remove is 0.
        """
        if tokens_to_remove:
            raise RuntimeError(
                "the cache of a prefill_selection layer cannot be cropped: what was trimmed is gone"
            )

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        self._select(torch.arange(self.batch)[indices.cpu()].tolist())

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._select(torch.arange(self.batch).repeat_interleave(repeats).tolist())

    def _select(self, sources: list[int]) -> None:
        """Row i becomes what row sources[i] was."""
        self.full_rows = _selected(self.full, self.full_rows, sources)
        self.trimmed_rows = _selected(self.trimmed, self.trimmed_rows, sources)
        self.batch = len(sources) if self.is_initialized else 0


def _selected(part: CacheLayerMixin, rows: Sequence[int], sources: list[int]) -> tuple[int, ...]:
    """Which rows the part, which held `rows`, holds after row i became what sources[i] was."""
    slot_of = {row: slot for slot, row in enumerate(rows)}
    chosen = [row for row, source in enumerate(sources) if source in slot_of]
    _keep_slots(part, [slot_of[sources[row]] for row in chosen])
    return tuple(chosen)


def _keep_slots(part: CacheLayerMixin, slots: list[int]) -> None:
    if slots:
        part.batch_select_indices(torch.tensor(slots))
    else:
        part.reset()
