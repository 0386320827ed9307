"""The cache layer of local attention: a ring for each span, sums of blocks, and far keys.

Shapes: B batch, G key/value heads, g heads of one span, T new tokens, K keys, N kept keys, M far
keys, F blocks, d head size.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from layerwright.kernels.local_attention import add_to_blocks
from layerwright.tasks.hybrid.mixers.streaming import StreamingCacheLayer

FAR_STEP = 64  # slots by which the room for far keys grows


class Seen(NamedTuple):
    """What the queries of one pass can see in the heads of one span."""

    keys: Tensor  # (B, g, K, d), those of the ring before the new ones
    values: Tensor
    positions: Tensor | None  # (B, K), once a batch has padding
    far: Tensor | None = None  # (M, 2, B, g, d), keys and values that had left the ring
    far_positions: Tensor | None = None  # (B, M), once a batch has padding


class SpanRing(StreamingCacheLayer):
    """Sinks and the last window - 1 tokens of some heads; keeps what leaves them, if asked to.

    Attributes:
        far: (slots, 2, B, g, d) keys and values that left, in order, in host memory; pinned where
            the model is on a CUDA device. The slots are a multiple of FAR_STEP, of which
            `far_slots` are taken. None before anything left.
        far_positions: (B, far_slots), once a batch has padding.
    """

    def __init__(self, sinks: int, window: int, keep_far: bool):
        super().__init__(sinks, window)
        self.keep_far = keep_far
        self._forget()

    def _forget(self) -> None:
        self.far: Tensor | None = None
        self.far_slots = 0
        self.far_positions: Tensor | None = None
        self._arriving: tuple[Tensor, torch.cuda.Event] | None = None

    def update(self, key_states, value_states, positions: Tensor | None = None) -> Seen:
        """Keeps what later queries can see; returns what these queries can, far keys apart."""
        far = self._far_here()
        if positions is not None and self.far_positions is None:
            left = torch.arange(self.sinks, self.sinks + self.far_slots, device=positions.device)
            self.far_positions = left.expand(len(positions), -1)
        far_positions = self.far_positions
        keys, values, positions = super().update(key_states, value_states, positions)
        leaving = keys.shape[2] - self.capacity
        if self.keep_far and positions is None and leaving > 0:
            left = slice(self.sinks, self.sinks + leaving)
            self._send_far(keys[:, :, left], values[:, :, left])
        return Seen(keys, values, positions, far, far_positions)

    def _keep(self, keys: Tensor, values: Tensor, positions_BK: Tensor) -> None:
        """As in the base class, but nothing real is lost: padding fills a ring before far keys."""
        newest_B1 = positions_BK.amax(dim=1, keepdim=True)
        padding = positions_BK < 0
        visible_later = (positions_BK < self.sinks) | (positions_BK > newest_B1 + 1 - self.window)
        rank = torch.where(padding, 1, torch.where(visible_later, 2, 0))
        order_BK = rank.argsort(dim=1, descending=True, stable=True)
        parts = []
        for slots in (order_BK[:, : self.capacity], order_BK[:, self.capacity :]):
            index = slots[:, None, :, None].expand(-1, keys.shape[1], -1, keys.shape[3])
            parts.append(
                (keys.gather(2, index), values.gather(2, index), positions_BK.gather(1, slots))
            )
        (self.keys, self.values, self.positions), left = parts
        if self.keep_far:
            self._send_far(*left)

    def _send_far(self, keys: Tensor, values: Tensor, positions: Tensor | None = None) -> None:
        if positions is not None:
            self.far_positions = torch.cat([self.far_positions, positions], dim=1)
        taken = self.far_slots + keys.shape[2]
        states = torch.stack([keys, values]).permute(3, 0, 1, 2, 4)
        if self.far is None or taken > len(self.far):
            room = states.new_empty(
                (far_room(taken), *states.shape[1:]),
                device="cpu",
                pin_memory=self.device.type == "cuda",
            )
            if self.far is not None:
                room[: self.far_slots] = self.far[: self.far_slots]
            self.far = room
        # Waits for the copy, so that no later read of the host's memory can come too early.
        self.far[self.far_slots : taken] = states
        self.far_slots = taken

    def prefetch(self) -> None:
        """Starts to copy the far keys to the layer's device, beside what runs there."""
        if self.far is None or self.device.type != "cuda" or self._arriving is not None:
            return
        stream = torch.cuda.Stream(self.device)
        with torch.cuda.stream(stream):
            states = self.far[: self.far_slots].to(self.device, non_blocking=True)
            self._arriving = states, stream.record_event()

    def _far_here(self) -> Tensor | None:
        """The far keys on the layer's device, for work that is queued from now on."""
        self.prefetch()
        if self._arriving is None:
            return None if self.far is None else self.far[: self.far_slots]
        (states, arrived), self._arriving = self._arriving, None
        stream = torch.cuda.current_stream(self.device)
        stream.wait_event(arrived)
        states.record_stream(stream)
        return states

    def reset(self) -> None:
        super().reset()
        self._forget()

    def _map_rows(self, change) -> None:
        super()._map_rows(change)
        self._arriving = None
        if self.far is not None:
            far = change(self.far.transpose(0, 2)).transpose(0, 2).contiguous()
            self.far = far.pin_memory() if self.device.type == "cuda" else far
        if self.far_positions is not None:
            self.far_positions = change(self.far_positions)


def far_room(slots: int) -> int:
    """Slots that are held for `slots` far keys."""
    return -(-slots // FAR_STEP) * FAR_STEP


class LocalCacheLayer(CacheLayerMixin):
    """One ring for each distinct span, and the sums of blocks of all heads.

    Args:
        sinks: first tokens that are kept.
        windows: per ring, the tokens that it lets a query see, the query's own included.
        heads: per ring, its key/value heads; None for all of them.
        block: positions of a block; None keeps no sums.
        keep_far: whether rings keep what leaves them.

    Attributes:
        key_sums, value_sums: (B, G, F, d) in fp32, over each block's tokens that are not sinks.
        counts: (B, 1, F, 1) how many these are, once a batch has padding; before that they follow
            from `cumulative_length`.
        cumulative_length: slots seen so far, padding included.
    """

    def __init__(
        self,
        sinks: int,
        windows: list[int],
        heads: list[list[int] | None],
        block: int | None,
        keep_far: bool,
    ):
        super().__init__()
        self.sinks, self.heads, self.block = sinks, heads, block
        self.rings = [SpanRing(sinks, window, keep_far) for window in windows]
        self._forget()

    def _forget(self) -> None:
        self.key_sums: Tensor | None = None
        self.value_sums: Tensor | None = None
        self.counts: Tensor | None = None
        self.cumulative_length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.is_initialized = True

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        positions: Tensor | None = None,
        summed_keys: Tensor | None = None,
    ) -> list[Seen]:
        """Takes new tokens (B, G, T, d) at positions (B, T), None while no row was ever padded.

        `summed_keys` are what the blocks sum; None with no blocks. Returns what is seen, per ring.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if summed_keys is not None:
            self.add_to_sums(summed_keys, value_states, positions)
        self.cumulative_length += key_states.shape[2]
        return [
            ring.update(*of_heads(key_states, value_states, heads), positions)
            for ring, heads in zip(self.rings, self.heads, strict=True)
        ]

    def add_to_sums(self, keys: Tensor, values: Tensor, positions: Tensor | None) -> None:
        """Adds new tokens to the blocks of their positions."""
        start, T = self.cumulative_length, keys.shape[2]
        blocks = self.blocks(start + T)
        if positions is None:
            positions = torch.arange(start, start + T, device=keys.device)[None]
        else:
            blocks = max(blocks, int(positions.amax()) // self.block + 1)  # positions with gaps
            ones = torch.ones(len(positions), 1, T, 1, device=keys.device)
            if self.counts is None:
                self.counts = self.counts_of(start, keys.device).expand(len(ones), 1, -1, 1)
            self.counts = self._add(self.counts, ones, positions, blocks)
        self.key_sums = self._add(self.key_sums, keys, positions, blocks)
        self.value_sums = self._add(self.value_sums, values, positions, blocks)

    def _add(self, sums, x, positions, blocks: int) -> Tensor:
        return add_to_blocks(sums, x, positions, self.sinks, self.block, blocks)

    def blocks(self, tokens: int) -> int:
        """Blocks that `tokens` positions reach into."""
        return -(-tokens // self.block)

    def counts_of(self, tokens: int, device) -> Tensor:
        """(1, 1, F, 1) tokens in each block when the first `tokens` positions are taken."""
        starts = torch.arange(self.blocks(tokens), device=device) * self.block
        taken = (starts + self.block).clamp_max(tokens) - starts.clamp_min(self.sinks)
        return taken.clamp_min(0).float()[None, None, :, None]

    def get_seq_length(self) -> int:
        return self.cumulative_length

    def get_max_length(self) -> int:
        return -1  # the context is unbounded

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.cumulative_length + query_length, 0

    def prefetch(self) -> None:
        for ring in self.rings:
            ring.prefetch()

    def reset(self) -> None:
        for ring in self.rings:
            ring.reset()
        self._forget()
        self.is_initialized = False

    def crop(self, tokens_to_remove: int) -> None:
        """Refused, except for no tokens: what left a span is gone, or its block summed.

        Raises:
            RuntimeError: always, unless tokens_to_remove is 0.
        """
        for ring in self.rings:
            ring.crop(tokens_to_remove)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        for ring in self.rings:
            ring.batch_select_indices(indices)
        self._map_rows(lambda x: x[indices.to(x.device)])

    def batch_repeat_interleave(self, repeats: int) -> None:
        for ring in self.rings:
            ring.batch_repeat_interleave(repeats)
        self._map_rows(lambda x: x.repeat_interleave(repeats, dim=0))

    def _map_rows(self, change) -> None:
        for name in ("key_sums", "value_sums", "counts"):
            if getattr(self, name) is not None:
                setattr(self, name, change(getattr(self, name)))


def of_heads(keys: Tensor, values: Tensor, heads: list[int] | None) -> tuple[Tensor, Tensor]:
    """The keys and values (B, g, T, d) of some heads; None for all."""
    return (keys, values) if heads is None else (keys[:, heads], values[:, heads])
