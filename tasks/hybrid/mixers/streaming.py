"""Streaming attention: S attention sinks and a sliding window of W, at their original positions.

Attention sinks: arXiv 2309.17453. As a replacement of lazy layers: arXiv 2410.13846.
Shapes: B batch, T new tokens, K keys, N kept keys, H query heads, G key/value heads, d head size.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from layerwright.kernels.streaming_attention import streaming_attention
from layerwright.tasks.hybrid.mixers.attention import (
    AttentionMixer,
    CacheSize,
    key_value_bytes,
    one_query_attention,
)
from layerwright.tasks.hybrid.placement import Placement

POSITION_BYTES = 8  # int64


def kept_positions(seen_tokens: int, sinks: int, window: int) -> Tensor:
    """Positions (1, N) that the cache keeps of `seen_tokens` tokens without padding, on the CPU.

    They ascend: the first `sinks` and the last `window` - 1 positions. The next query is the last
    position of its own window.
    """
    recent = torch.arange(max(seen_tokens - (window - 1), min(sinks, seen_tokens)), seen_tokens)
    return torch.cat([torch.arange(min(sinks, seen_tokens)), recent])[None]


class StreamingCacheLayer(CacheLayerMixin):
    """Keys and values of at most `sinks` + `window` - 1 tokens per row, whatever the context.

    Attributes:
        keys, values: (B, G, N, d).
        positions: (B, N) int64, -1 for empty slots. None until a batch has padding; the positions
            then follow from `cumulative_length` (see `kept_positions`).
        cumulative_length: slots seen so far, padding included.
    """

    keys: Any  # None until the first update
    values: Any

    def __init__(self, sinks: int, window: int):
        super().__init__()
        self.sinks, self.window = sinks, window
        self.capacity = sinks + window - 1
        self.cumulative_length = 0
        self.positions: Tensor | None = None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
        self.is_initialized = True

    def update(  # type: ignore[override] # Transformers' layers return keys and values only
        self, key_states: Tensor, value_states: Tensor, positions: Tensor | None = None
    ) -> Any:
        """Keeps what later queries can see; returns what the new queries can see.

        Args:
            key_states, value_states: (B, G, T, d).
            positions: (B, T), -1 for padding; None if no row has had padding.

        Returns:
            keys and values (B, G, N + T, d), the kept ones before the new ones, and their positions
            (B, N + T) or None.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        keys = torch.cat([self.keys, key_states], dim=2)
        values = torch.cat([self.values, value_states], dim=2)
        if positions is not None:
            if self.positions is None:
                kept = kept_positions(self.cumulative_length, self.sinks, self.window)
                self.positions = kept.to(positions.device).expand(keys.shape[0], -1)
            positions = torch.cat([self.positions, positions], dim=1)
        self.cumulative_length += key_states.shape[2]
        if positions is None:
            self.keys, self.values = self._ends(keys), self._ends(values)
        else:
            self._keep(keys, values, positions)
        return keys, values, positions

    def _ends(self, states: Tensor) -> Tensor:
        """The first `sinks` and the last `window` - 1 slots."""
        slots = states.shape[2]
        if slots <= self.capacity:
            return states
        recent = states[:, :, slots - (self.window - 1) :]
        return torch.cat([states[:, :, : self.sinks], recent], dim=2)

    def _keep(self, keys: Tensor, values: Tensor, positions_BK: Tensor) -> None:
        """As `_ends` for padded rows: selects by position in each row, keeps the slots' order."""
        newest_B1 = positions_BK.amax(dim=1, keepdim=True)
        visible_later = (positions_BK < self.sinks) | (positions_BK > newest_B1 + 1 - self.window)
        keep_BK = (positions_BK >= 0) & visible_later
        slots_BN = keep_BK.int().argsort(dim=1, descending=True, stable=True)[:, : self.capacity]
        self.positions = positions_BK.gather(1, slots_BN)
        self.positions = self.positions.masked_fill(~keep_BK.gather(1, slots_BN), -1)
        index = slots_BN[:, None, :, None].expand(-1, keys.shape[1], -1, keys.shape[3])
        self.keys, self.values = keys.gather(2, index), values.gather(2, index)

    def get_seq_length(self) -> int:
        return self.cumulative_length

    def get_max_length(self) -> int:
        return -1  # no limit on the context

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return min(self.cumulative_length, self.capacity) + query_length, 0

    def reset(self) -> None:
        self.keys = self.values = self.positions = None
        self.is_initialized = False
        self.cumulative_length = 0

    def crop(self, tokens_to_remove: int) -> None:
        """Always refused unless the count is 0: tokens outside the window are lost.

        Raises:
            RuntimeError: tokens_to_remove is not 0.
        """
        if tokens_to_remove:
            raise RuntimeError(
                "a streaming layer's cache cannot be cropped: it no longer has the tokens before "
                "its window. Assisted and prompt-lookup decoding need a model whose capabilities "
                "have crop: true."
            )

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        self._map_rows(lambda x: x[indices.to(x.device)])

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._map_rows(lambda x: x.repeat_interleave(repeats, dim=0))

    def _map_rows(self, change: Callable[[Tensor], Tensor]) -> None:
        if self.is_initialized:
            self.keys, self.values = change(self.keys), change(self.values)
        if self.positions is not None:
            self.positions = change(self.positions)


class StreamingAttention(AttentionMixer):
    """Spec: {"kind": "streaming", "sinks": S >= 0, "window": W >= 1}; W counts the query too."""

    kind = "streaming"

    def attend(
        self,
        q_BHTd: Tensor,
        k_BGTd: Tensor,
        v_BGTd: Tensor,
        placement: Placement,
        cache: Any = None,
    ) -> Tensor:
        sinks, window = self.spec["sinks"], self.spec["window"]
        k, v, tokens = k_BGTd, v_BGTd, q_BHTd.shape[2]
        k_positions = placement.stored_positions
        if cache is not None:
            k, v, k_positions = cache.update(k, v, self.layer_idx, positions=k_positions)
        if k_positions is not None:
            return streaming_attention(
                q_BHTd, k, v, placement.positions, k_positions, sinks, window
            )
        if tokens == 1:  # a single query sees all keys in the cache
            return one_query_attention(q_BHTd, k, v)
        # Positions stay on the CPU, so that the operator plans without waiting for the device.
        past = placement.past_tokens
        q_positions = torch.arange(past, past + tokens)[None]
        k_positions = torch.cat([kept_positions(past, sinks, window), q_positions], dim=1)
        return streaming_attention(q_BHTd, k, v, q_positions, k_positions, sinks, window)

    @classmethod
    def check_parameters(cls, parameters: dict[str, Any]) -> None:
        if set(parameters) != {"sinks", "window"}:
            raise ValueError(f"takes 'sinks' and 'window', got {sorted(parameters)}")
        for name, least in (("sinks", 0), ("window", 1)):
            value = parameters[name]
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} must be a whole number >= {least}, got {value!r}")

    @classmethod
    def reach_tokens(cls, spec: dict[str, Any]) -> int:
        return spec["sinks"] + spec["window"]

    @classmethod
    def cache_layer(cls, spec: dict[str, Any]) -> StreamingCacheLayer:
        return StreamingCacheLayer(spec["sinks"], spec["window"])

    @classmethod
    def kv_bytes(cls, config: Any, spec: dict[str, Any], size: CacheSize) -> int:
        kept = min(size.context_tokens, spec["sinks"] + spec["window"] - 1)
        slot = key_value_bytes(config, size.element_bytes) + (POSITION_BYTES if size.padded else 0)
        return size.batch * kept * slot
