"""The cache layer of local attention: a sliding window per span, block sums and far keys.

Shapes: B batch, G key/value heads, g heads of one span, T new tokens, K keys, N kept keys, M far
keys, F blocks, d head size.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from layerwright.kernels.local_attention import add_to_blocks
from layerwright.tasks.hybrid.mixers.cache_layer import CacheLayer
from layerwright.tasks.hybrid.mixers.streaming import StreamingCacheLayer

FAR_STEP = 64  # far slots are allocated in multiples of this


class Seen(NamedTuple):
    """The keys that the queries of one pass can see in the heads of one span."""

    keys: Tensor  # (B, g, K, d), kept keys before new keys
    values: Tensor
    positions: Tensor | None  # (B, K) if a batch has had padding
    far: Tensor | None = None  # (M, 2, B, g, d), keys and values outside the window
    far_positions: Tensor | None = None  # (B, M) if a batch has had padding


class SpanWindow(StreamingCacheLayer):
    """Sinks and the last window - 1 tokens of some heads; with `keep_far` also all other tokens.

    Attributes:
        far: (slots, 2, B, g, d) keys and values outside the window, in order, in host memory;
            pinned if the model is on a CUDA device. The number of slots is a multiple of FAR_STEP,
            of which `far_slots` are in use. None while there are none.
        far_positions: (B, far_slots) if a batch has had padding.
    """

    by_row = (*StreamingCacheLayer.by_row, "far_positions")

    def __init__(self, sinks: int, window: int, keep_far: bool):
        super().__init__(sinks, window)
        self.keep_far = keep_far
        self.far: Tensor | None = None
        self.far_slots = 0
        self.far_positions: Tensor | None = None
        self._prefetched: tuple[Tensor, torch.cuda.Event] | None = None

    def update(  # type: ignore[override] # Transformers' layers return keys and values only
        self, key_states: Tensor, value_states: Tensor, positions: Tensor | None = None
    ) -> Seen:
        """Keeps what later queries can see; returns what the new queries can see."""
        far = self._far_on_device()
        if positions is not None and self.far_positions is None:
            first = torch.arange(self.far_slots, device=positions.device) + self.sinks
            self.far_positions = first.expand(len(positions), -1)
        far_positions = self.far_positions
        keys, values, positions = super().update(key_states, value_states, positions)
        leaving = keys.shape[2] - self.capacity
        if self.keep_far and positions is None and leaving > 0:
            left = slice(self.sinks, self.sinks + leaving)
            self._append_far(keys[:, :, left], values[:, :, left])
        return Seen(keys, values, positions, far, far_positions)

    def _keep(self, keys: Tensor, values: Tensor, positions_BK: Tensor) -> None:
        """As in the base class, but no real token is lost: padding stays before far keys do."""
        newest_B1 = positions_BK.amax(dim=1, keepdim=True)
        padding = positions_BK < 0
        visible_later = (positions_BK < self.sinks) | (positions_BK > newest_B1 + 1 - self.window)
        rank = torch.where(padding, 1, torch.where(visible_later, 2, 0))
        order_BK = rank.argsort(dim=1, descending=True, stable=True)

        def chosen(slots_BN: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            index = slots_BN[:, None, :, None].expand(-1, keys.shape[1], -1, keys.shape[3])
            return keys.gather(2, index), values.gather(2, index), positions_BK.gather(1, slots_BN)

        self.keys, self.values, self.positions = chosen(order_BK[:, : self.capacity])
        if self.keep_far:
            self._append_far(*chosen(order_BK[:, self.capacity :]))

    def _append_far(self, keys: Tensor, values: Tensor, positions: Tensor | None = None) -> None:
        if positions is not None and self.far_positions is not None:
            self.far_positions = torch.cat([self.far_positions, positions], dim=1)
        taken = self.far_slots + keys.shape[2]
        states = torch.stack([keys, values]).permute(3, 0, 1, 2, 4)
        if self.far is None or taken > len(self.far):
            shape = far_capacity(taken), *states.shape[1:]
            grown = states.new_empty(shape, device="cpu", pin_memory=self.device.type == "cuda")
            if self.far is not None:
                grown[: self.far_slots] = self.far[: self.far_slots]
            self.far = grown
        # A blocking copy, so that no later read of host memory can precede it.
        self.far[self.far_slots : taken] = states
        self.far_slots = taken

    def prefetch(self) -> None:
        """Starts to copy the far keys to the layer's device, in parallel with the work there."""
        if self.far is None or self.device.type != "cuda" or self._prefetched is not None:
            return
        stream = torch.cuda.Stream(self.device)
        with torch.cuda.stream(stream):
            states = self.far[: self.far_slots].to(self.device, non_blocking=True)
            self._prefetched = states, stream.record_event()

    def _far_on_device(self) -> Tensor | None:
        """The far keys on the layer's device, usable by work queued from now on."""
        self.prefetch()
        if self._prefetched is None:
            return None if self.far is None else self.far[: self.far_slots]
        (states, copied), self._prefetched = self._prefetched, None
        stream = torch.cuda.current_stream(self.device)
        stream.wait_event(copied)
        states.record_stream(stream)
        return states

    def reset(self) -> None:
        super().reset()
        self.far = self._prefetched = None
        self.far_slots = 0

    def _map_rows(self, change: Callable[[Tensor], Tensor]) -> None:
        super()._map_rows(change)
        self._prefetched = None
        if self.far is not None:
            far = change(self.far.transpose(0, 2)).transpose(0, 2).contiguous()
            self.far = far.pin_memory() if self.device.type == "cuda" else far


def far_capacity(slots: int) -> int:
    """Number of slots allocated for `slots` far keys."""
    return -(-slots // FAR_STEP) * FAR_STEP


class LocalCacheLayer(CacheLayer):
    """One window for each distinct span, and the block sums of all heads.

    Args:
        windows: for each span, the tokens that a query sees, its own position included.
        heads: for each span, its key/value heads; None for all.
        block: positions per block; None for no sums.
        keep_far: whether to keep the tokens outside the windows.

    Attributes:
        key_sums, value_sums: (B, G, F, d) in fp32, over each block's tokens that are not sinks.
        counts: (B, 1, F, 1) tokens in each sum, if a batch has had padding; else None, and they
            follow from `cumulative_length`.
    """

    by_row = ("key_sums", "value_sums", "counts")
    key_sums: Any = None
    value_sums: Any = None

    def __init__(
        self,
        sinks: int,
        windows: list[int],
        heads: list[list[int] | None],
        block: int | None,
        keep_far: bool,
    ):
        super().__init__()
        self.sinks, self.heads = sinks, heads
        self.block: Any = block  # an int in all methods that sum blocks
        self.windows = [SpanWindow(sinks, window, keep_far) for window in windows]
        self.counts: Tensor | None = None

    def update(  # type: ignore[override] # Transformers' layers return keys and values only
        self,
        key_states: Tensor,
        value_states: Tensor,
        positions: Tensor | None = None,
        summed_keys: Tensor | None = None,
    ) -> list[Seen]:
        """Adds new tokens (B, G, T, d) at positions (B, T), or None if no row has had padding.

        Args:
            summed_keys: keys to add to the block sums; None if there are no blocks.

        Returns:
            What the new queries see, for each span.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if summed_keys is not None:
            self.add_to_sums(summed_keys, value_states, positions)
        self.cumulative_length += key_states.shape[2]
        return [
            window.update(*select_heads(key_states, value_states, heads), positions)
            for window, heads in zip(self.windows, self.heads, strict=True)
        ]

    def add_to_sums(self, keys: Tensor, values: Tensor, positions: Tensor | None) -> None:
        """Adds new tokens to the sums of their blocks."""
        start, T = self.cumulative_length, keys.shape[2]
        blocks = self.blocks(start + T)
        if positions is None:
            positions = torch.arange(start, start + T, device=keys.device)[None]
        else:
            # position_ids may have gaps
            blocks = max(blocks, int(positions.amax()) // self.block + 1)
            ones = torch.ones(len(positions), 1, T, 1, device=keys.device)
            if self.counts is None:
                self.counts = self.counts_of(start, keys.device).expand(len(ones), 1, -1, 1)
            self.counts = self._add(self.counts, ones, positions, blocks)
        self.key_sums = self._add(self.key_sums, keys, positions, blocks)
        self.value_sums = self._add(self.value_sums, values, positions, blocks)

    def _add(self, sums: Tensor | None, x: Tensor, positions: Tensor, blocks: int) -> Tensor:
        return add_to_blocks(sums, x, positions, self.sinks, self.block, blocks)

    def blocks(self, tokens: int) -> int:
        """Number of blocks that cover `tokens` positions."""
        return -(-tokens // self.block)

    def counts_of(self, tokens: int, device: torch.device) -> Tensor:
        """(1, 1, F, 1) tokens in each block, without sinks, after `tokens` positions."""
        starts = torch.arange(self.blocks(tokens), device=device) * self.block
        taken = (starts + self.block).clamp_max(tokens) - starts.clamp_min(self.sinks)
        return taken.clamp_min(0).float()[None, None, :, None]

    def prefetch(self) -> None:
        for window in self.windows:
            window.prefetch()

    def reset(self) -> None:
        super().reset()
        for window in self.windows:
            window.reset()

    def _map_rows(self, change: Callable[[Tensor], Tensor]) -> None:
        super()._map_rows(change)
        for window in self.windows:
            window._map_rows(change)


def select_heads(keys: Tensor, values: Tensor, heads: list[int] | None) -> tuple[Tensor, Tensor]:
    """The keys and values (B, g, T, d) of some heads; None for all."""
    return (keys, values) if heads is None else (keys[:, heads], values[:, heads])
