"""Cache layers of prefill selection: layers compete during prefill to keep all keys of a prompt.

Shapes: B batch, G key/value heads, T new tokens, K slots, d head size; rows are some of the B.
"""

from collections.abc import Sequence
from heapq import heappush, heappushpop
from typing import Any, NamedTuple

import torch
from torch import Tensor

from layerwright.tasks.hybrid.mixers.cache_layer import CacheLayer
from layerwright.tasks.hybrid.mixers.full import FullCacheLayer
from layerwright.tasks.hybrid.mixers.streaming import StreamingCacheLayer


class LazyQueue:
    """Selects in each row the `full_layers` least lazy layers; these keep all keys.

    Each row has a priority queue. A layer enters with its lazy ratio; when the queue has more than
    `full_layers` layers, the laziest leaves (LightTransfer's test mode, arXiv 2410.13846). Of
    equally lazy layers the highest leaves: it came last, so no stored keys must be trimmed.

    Args:
        layers: the competing cache layers by layer index, ascending.
        full_layers: how many of them keep all keys.
        fixed: for each row, the layers to trim; replaces the selection by lazy ratio.

    Raises:
        ValueError: `fixed` names other layers, or more or fewer layers, than a selection can have.
    """

    def __init__(
        self,
        layers: "dict[int, SelectiveCacheLayer]",
        full_layers: int,
        fixed: Sequence[Sequence[int]] | None = None,
    ):
        self.layers, self.full_layers, self.fixed = layers, full_layers, fixed
        count = max(len(layers) - full_layers, 0)
        for row, trimmed in enumerate(fixed or []):
            if not len(trimmed) == len(set(trimmed) & set(layers)) == count:
                raise ValueError(
                    f"selection, row {row}: expected {count} distinct layers out of "
                    f"{list(layers)}, got {list(trimmed)}"
                )
        for index, layer in layers.items():
            layer.index, layer.queue = index, self
        self.reset()

    def reset(self) -> None:
        """Discards the selection of a prompt, even in the middle of the prompt."""
        self.kept: list[list[tuple[float, int]]] = []  # one heap per row; its top leaves next
        self.entered = 0

    def enter(self, layer: int, lazy_ratios: Sequence[float]) -> dict[int, list[int]]:
        """Adds a layer with its lazy ratio in each row.

        Returns:
            By layer index, the rows (ascending) in which this layer now leaves the queue.

        Raises:
            ValueError: `fixed` has another number of rows.
        """
        if self.fixed is not None:
            if len(self.fixed) != len(lazy_ratios):
                raise ValueError(
                    f"selection has {len(self.fixed)} rows for a batch of {len(lazy_ratios)}"
                )
            return {layer: [row for row, trimmed in enumerate(self.fixed) if layer in trimmed]}
        leaving: dict[int, list[int]] = {}
        self.kept = self.kept or [[] for _ in lazy_ratios]
        for row, ratio in enumerate(lazy_ratios):
            entry = (-ratio, -layer)
            if len(self.kept[row]) < self.full_layers:
                heappush(self.kept[row], entry)
            else:
                _, evicted = heappushpop(self.kept[row], entry)
                leaving.setdefault(-evicted, []).append(row)
        self.entered += 1
        if self.entered == len(self.layers):
            self.reset()
        return leaving

    def selection(self) -> list[tuple[int, ...]]:
        """For each row, the layers that were trimmed; empty before a prompt."""
        layers = self.layers.items()
        batch = max(layer.batch for layer in self.layers.values())
        return [
            tuple(i for i, layer in layers if row in layer.trimmed_rows) for row in range(batch)
        ]


class TrimmedRows(StreamingCacheLayer):
    """Rows that keep only the sinks and the last window - 1 tokens of a prompt."""

    def trim(
        self, keys: Tensor, values: Tensor, positions: Tensor | None, rows: Sequence[int]
    ) -> None:
        """Takes `rows` of a prompt's keys and values (B, G, K, d), at positions (B, K) or None.

        All rows are trimmed before the rows are selected, so that no full-length copy is made.
        """
        self.lazy_initialization(keys, values)
        self.cumulative_length = keys.shape[2]
        self._retain(keys, values, positions)
        self.batch_select_indices(torch.tensor(rows))

    def join(self, other: "TrimmedRows", order: Sequence[int]) -> None:
        """Adds other rows of the same prompt, then puts all rows into `order`."""
        for name in self.by_row:
            if (tensor := getattr(self, name)) is not None:
                setattr(self, name, torch.cat([tensor, getattr(other, name)])[order])


class VisibleRows(NamedTuple):
    """The keys that the next token sees in some rows of the batch."""

    rows: list[int] | slice
    keys: Tensor  # (rows, G, K, d)
    values: Tensor
    positions: Tensor | None  # (rows, K) of trimmed rows in a padded batch


class SelectiveCacheLayer(CacheLayer):
    """All keys and values of some rows; sinks and window of the other rows.

    Attributes:
        full, trimmed: the two parts.
        full_rows, trimmed_rows: the rows of the batch in each part, ascending; on the host, because
            tensor shapes depend on them.
        batch: number of rows, 0 before a prompt.
        index, queue: the layer's index, and the queue that selects its rows to trim; it sets both.
    """

    supports_early_init = False
    crop_error = "a prefill_selection layer's cache cannot be cropped: trimmed tokens are lost"

    def __init__(self, sinks: int, window: int):
        super().__init__()
        self.sinks, self.window = sinks, window
        self.index: int
        self.queue: LazyQueue
        self._clear()

    def _clear(self) -> None:
        self.full, self.trimmed = FullCacheLayer(), TrimmedRows(self.sinks, self.window)
        self.full_rows: tuple[int, ...] = ()
        self.trimmed_rows: tuple[int, ...] = ()
        self.batch, self.is_initialized = 0, False

    def update(  # type: ignore[override] # Transformers' layers return keys and values only
        self,
        key_states: Tensor,
        value_states: Tensor,
        positions: Tensor | None = None,
        lazy_ratios: Sequence[float] | None = None,
    ) -> list[VisibleRows | None]:
        """Takes a prompt, after which this or other layers trim some rows; or takes one more token.

        Args:
            key_states, value_states: (B, G, T, d); T is 1 after the prompt.
            positions: (B, T), -1 for padding; None if no row has had padding.
            lazy_ratios: lazy ratio of the prompt in each row; by default all are equally lazy.

        Returns:
            After the prompt: what the token sees in the full and in the trimmed rows, if any.
        """
        if self.is_initialized:
            states = (key_states, value_states, positions)
            return [
                self._extend(self.full, self.full_rows, *states),
                self._extend(self.trimmed, self.trimmed_rows, *states),
            ]
        self.lazy_initialization(key_states, value_states)
        self.batch = len(key_states)
        leaving = self.queue.enter(self.index, lazy_ratios or [1.0] * self.batch)
        own = leaving.pop(self.index, [])
        for layer, rows in leaving.items():  # first, to free memory for this layer's keys
            self.queue.layers[layer].trim(rows, positions)
        if own:
            self._add_trimmed(own, key_states, value_states, positions, own)
        self.full_rows = tuple(row for row in range(self.batch) if row not in own)
        self._extend(self.full, self.full_rows, key_states, value_states, None)
        return [None, None]

    def _extend(
        self, part: FullCacheLayer | TrimmedRows, rows: Sequence[int], *states: Any
    ) -> VisibleRows | None:
        """Appends the rows' new keys, values and positions to one of the two parts."""
        if not rows:
            return None
        index = slice(None) if len(rows) == self.batch else list(rows)
        states = tuple(None if x is None else x[index] for x in states)
        return VisibleRows(index, *part.update(*states))

    def trim(self, rows: Sequence[int], positions: Tensor | None) -> None:
        """Trims full rows, ascending indices, to sinks and window; frees their other keys.

        `positions` are those of the prompt (B, K), -1 for padding; None if no row has padding.
        """
        slots = [self.full_rows.index(row) for row in rows]
        if positions is not None:
            positions = positions.to(self.full.keys.device)[list(self.full_rows)]
        self._add_trimmed(rows, self.full.keys, self.full.values, positions, slots)
        remaining = [slot for slot in range(len(self.full_rows)) if slot not in slots]
        _keep_slots(self.full, remaining)
        self.full_rows = tuple(self.full_rows[slot] for slot in remaining)

    def _add_trimmed(
        self,
        rows: Sequence[int],
        keys: Tensor,
        values: Tensor,
        positions: Tensor | None,
        slots: Sequence[int],
    ) -> None:
        """Adds rows of the batch to the trimmed rows; `slots` are their indices in `keys`."""
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

    def reset(self) -> None:
        self._clear()
        self.queue.reset()

    def batch_select_indices(self, indices: Tensor) -> None:
        self._select(torch.arange(self.batch)[indices.cpu()].tolist())

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._select(torch.arange(self.batch).repeat_interleave(repeats).tolist())

    def _select(self, sources: list[int]) -> None:
        """Replaces the rows: row i becomes the old row sources[i]."""
        self.full_rows = _select_part(self.full, self.full_rows, sources)
        self.trimmed_rows = _select_part(self.trimmed, self.trimmed_rows, sources)
        self.batch = len(sources) if self.is_initialized else 0


def _select_part(
    part: FullCacheLayer | TrimmedRows, rows: Sequence[int], sources: list[int]
) -> tuple[int, ...]:
    """Applies `sources` to a part that holds `rows`; returns the rows it holds now."""
    slot_of = {row: slot for slot, row in enumerate(rows)}
    kept = [row for row, source in enumerate(sources) if source in slot_of]
    _keep_slots(part, [slot_of[sources[row]] for row in kept])
    return tuple(kept)


def _keep_slots(part: FullCacheLayer | TrimmedRows, slots: list[int]) -> None:
    if slots:
        part.batch_select_indices(torch.tensor(slots))
    else:
        part.reset()
