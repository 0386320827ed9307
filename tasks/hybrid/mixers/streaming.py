"""Streaming attention: S attention sinks and a sliding window of W, at their original positions.

Attention sinks: arXiv 2309.17453. As a replacement of lazy layers: arXiv 2410.13846.
Shapes: B batch, T new tokens, K keys, N kept keys, H query heads, G key/value heads, d head size.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor

from layerwright.kernels.streaming_attention import streaming_attention
from layerwright.tasks.hybrid.mixers.attention import (
    AttentionMixer,
    CacheSize,
    check_whole,
    key_value_bytes,
    one_query_attention,
)
from layerwright.tasks.hybrid.mixers.cache_layer import CacheLayer
from layerwright.tasks.hybrid.placement import Placement

POSITION_BYTES = 8  # int64


def kept_positions(seen_tokens: int, sinks: int, window: int) -> Tensor:
    """Positions (1, N) that the cache keeps of `seen_tokens` tokens without padding, on the CPU.

    They ascend: the first `sinks` and the last `window` - 1 positions (the next query is the last).
    """
    recent = torch.arange(max(seen_tokens - (window - 1), min(sinks, seen_tokens)), seen_tokens)
    return torch.cat([torch.arange(min(sinks, seen_tokens)), recent])[None]


def host_positions(
    placement: Placement, tokens: int, sinks: int, window: int
) -> tuple[Tensor, Tensor]:
    """Positions (1, T) and (1, N + T) of the queries and keys of a pass without padding.

    They are on the CPU, so that an operator plans without waiting for the device.
    """
    past = placement.past_tokens
    q_positions = torch.arange(past, past + tokens)[None]
    return q_positions, torch.cat([kept_positions(past, sinks, window), q_positions], dim=1)


class StreamingCacheLayer(CacheLayer):
    """Keys and values of at most `sinks` + `window` - 1 tokens per row, whatever the context.

    Attributes:
        keys, values: (B, G, N, d).
        positions: (B, N) int64, -1 for empty slots. None until a batch has padding; the positions
            then follow from `cumulative_length` (see `kept_positions`).
    """

    by_row: ClassVar[tuple[str, ...]] = ("keys", "values", "positions")
    keys: Any  # None until the first update
    values: Any

    def __init__(self, sinks: int, window: int):
        super().__init__()
        self.sinks, self.window = sinks, window
        self.capacity = sinks + window - 1
        self.positions: Tensor | None = None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]

    def update(
        self, key_states: Tensor, value_states: Tensor, positions: Tensor | None = None
    ) -> Any:
        """Adds tokens (B, G, T, d) at positions (B, T), or None if no row has had padding.

        Returns:
            What the new queries can see: keys and values (B, G, N + T, d), the kept ones before the
            new ones, and their positions (B, N + T) or None.
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
        self._retain(keys, values, positions)
        self.cumulative_length += key_states.shape[2]
        return keys, values, positions

    def _retain(self, keys: Tensor, values: Tensor, positions: Tensor | None) -> None:
        if positions is None:
            self.keys, self.values = self._ends(keys), self._ends(values)
        else:
            self._keep(keys, values, positions)

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

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return min(self.cumulative_length, self.capacity) + query_length, 0


class StreamingAttention(AttentionMixer):
    """Spec: {"kind": "streaming", "sinks": S >= 0, "window": W >= 1}; W counts the query too."""

    kind = "streaming"
    least: ClassVar = {"sinks": 0, "window": 1}  # the parameters, with their smallest values

    def sink_logits(self) -> Tensor | None:
        """A learned logit per query head in the softmax's denominator, (H,), or None."""
        return None

    def attend(
        self, q_BHTd: Tensor, k_BGTd: Tensor, v_BGTd: Tensor, placement: Placement, cache: Any
    ) -> Tensor:
        k, v, stored = k_BGTd, v_BGTd, placement.stored_positions
        if cache is not None:
            k, v, stored = cache.update(k, v, self.layer_idx, positions=stored)
        sinks, window, logits = self.spec.get("sinks", 0), self.spec["window"], self.sink_logits()
        if stored is not None:
            positions = placement.positions, stored
        elif q_BHTd.shape[2] == 1:  # a single query sees all keys in the cache
            return one_query_attention(q_BHTd, k, v, sink_logits_H=logits)
        else:
            positions = host_positions(placement, q_BHTd.shape[2], sinks, window)
        return streaming_attention(q_BHTd, k, v, *positions, sinks, window, sink_logits_H=logits)

    @classmethod
    def check_parameters(cls, parameters: dict[str, Any]) -> None:
        if set(parameters) != set(cls.least):
            raise ValueError(
                f"takes {' and '.join(map(repr, cls.least))}, got {sorted(parameters)}"
            )
        for name, least in cls.least.items():
            check_whole(least, **{name: parameters[name]})

    @classmethod
    def reach_tokens(cls, spec: dict[str, Any]) -> int:
        return spec.get("sinks", 0) + spec["window"]

    @classmethod
    def cache_layer(cls, spec: dict[str, Any]) -> StreamingCacheLayer:
        return StreamingCacheLayer(spec.get("sinks", 0), spec["window"])

    @classmethod
    def kv_bytes(cls, config: Any, spec: dict[str, Any], size: CacheSize) -> int:
        kept = min(size.context_tokens, spec.get("sinks", 0) + spec["window"] - 1)
        slot = key_value_bytes(config, size.element_bytes) + (POSITION_BYTES if size.padded else 0)
        return size.batch * kept * slot
