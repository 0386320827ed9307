"""Selects lazy layers during prefill: all but the P least lazy layers keep sinks and window only.

LightTransfer's test mode (arXiv 2410.13846, section 3): every layer reads the prompt with full
attention; the selected layers then decode with sinks and window only. The logits after a prompt
therefore differ from one pass over prompt and answer. The contract is: a selection made during
prefill gives the same numbers as the same selection passed to `HybridCache(selection=...)`.
Shapes: B batch, T new tokens, K slots, Q queries, H query heads, G key/value heads, d head size.
"""

from typing import Any

import torch
from torch import Tensor

from layerwright.kernels.covered_mass import covered_mass
from layerwright.kernels.streaming_attention import streaming_attention
from layerwright.tasks.hybrid.mixers.attention import CacheSize, check_whole, one_query_attention
from layerwright.tasks.hybrid.mixers.full import FullAttention
from layerwright.tasks.hybrid.mixers.selective_cache import SelectiveCacheLayer
from layerwright.tasks.hybrid.mixers.streaming import StreamingAttention
from layerwright.tasks.hybrid.placement import Placement

PARAMETERS = ("full_layers", "sinks", "window", "last_queries")


def full_layer_count(spec: dict[str, Any], layers: int) -> int:
    """How many of `layers` competing layers keep all keys; by default half, rounded up."""
    requested = spec["full_layers"]
    return min(layers - layers // 2 if requested is None else requested, layers)


class PrefillSelection(FullAttention):
    """Full attention in prefill; sinks and window in decode, except in the P least lazy layers.

    Spec: {"kind": "prefill_selection", "full_layers": P, "sinks": S, "window": W, "last_queries":
    w}, the same in all layers of this kind; P = None means half of them, rounded up.

    Without a cache this is full attention. With a cache, the first pass is the whole prompt. After
    it come single tokens; in each row they see all keys in P of the layers, and the first S and
    last W keys in the others, at their original positions. HybridCache.update refuses several
    tokens at once: they would need a new selection.
    """

    kind = "prefill_selection"
    croppable = False
    decides_together = True

    def attend(
        self, q_BHTd: Tensor, k_BGTd: Tensor, v_BGTd: Tensor, placement: Placement, cache: Any
    ) -> Tensor:
        states = (k_BGTd, v_BGTd, self.layer_idx, placement.stored_positions)
        if cache is None or placement.past_tokens == 0:
            out_BHTd = super().attend(q_BHTd, k_BGTd, v_BGTd, placement, None)
            if cache is not None:
                cache.update(*states, lazy_ratios=self.lazy_ratios(q_BHTd, k_BGTd, placement))
            return out_BHTd
        full, trimmed = cache.update(*states)
        out_BH1d = torch.empty_like(q_BHTd)
        if full is not None:
            rows, mask = full.rows, placement.causal_mask
            mask = None if mask is None else mask[rows]
            out_BH1d[rows] = one_query_attention(q_BHTd[rows], full.keys, full.values, mask)
        if trimmed is not None:
            rows, kept = trimmed.rows, (trimmed.keys, trimmed.values)
            if trimmed.positions is None:  # a single query sees all keys in the cache
                out_BH1d[rows] = one_query_attention(q_BHTd[rows], *kept)
            else:
                positions = placement.positions[rows], trimmed.positions
                ends = self.spec["sinks"], self.spec["window"]
                out_BH1d[rows] = streaming_attention(q_BHTd[rows], *kept, *positions, *ends)
        return out_BH1d

    @torch.no_grad()
    def lazy_ratios(self, q_BHTd: Tensor, k_BGTd: Tensor, placement: Placement) -> list[float]:
        """Mean of `covered_mass` over heads and the last w real queries (or all), in each row."""
        sinks, window = self.spec["sinks"], self.spec["window"]
        count = min(self.spec["last_queries"], q_BHTd.shape[2])
        if placement.contiguous:
            (mass_BHQ,) = covered_mass(q_BHTd[:, :, -count:], k_BGTd, (window,), sinks)
            return mass_BHQ.mean((1, 2)).tolist()
        last_BQ, slots_BQ = placement.positions.topk(count, dim=1)  # padding (-1) comes last
        index = slots_BQ[:, None, :, None].expand(-1, q_BHTd.shape[1], -1, q_BHTd.shape[3])
        q_BHQd = q_BHTd.gather(2, index)
        positions = last_BQ, placement.positions
        (mass_BHQ,) = covered_mass(q_BHQd, k_BGTd, (window,), sinks, *positions)
        real_B = (last_BQ >= 0).sum(1).clamp_min(1)
        return (mass_BHQ.mean(1).sum(1) / real_B).tolist()

    @classmethod
    def check_parameters(cls, parameters: dict[str, Any]) -> None:
        if set(parameters) != set(PARAMETERS):
            raise ValueError(f"takes {', '.join(map(repr, PARAMETERS))}, got {sorted(parameters)}")
        full_layers, sinks, window, last_queries = map(parameters.get, PARAMETERS)
        check_whole(0, full_layers=0 if full_layers is None else full_layers, sinks=sinks)
        check_whole(1, window=window, last_queries=last_queries)

    @classmethod
    def reach_tokens(cls, spec: dict[str, Any]) -> int:
        return spec["sinks"] + spec["window"]

    @classmethod
    def cache_layer(cls, spec: dict[str, Any]) -> SelectiveCacheLayer:
        return SelectiveCacheLayer(spec["sinks"], spec["window"])

    @classmethod
    def kv_bytes(cls, config: Any, spec: dict[str, Any], size: CacheSize) -> int:
        """One layer's rounded share of the bytes of all competing layers (all, if none compete)."""
        competing = sum(other["mixer"]["kind"] == cls.kind for other in config.layer_specs)
        layers = competing or config.num_hidden_layers
        return round(cls.all_kv_bytes(config, [spec] * layers, size) / layers)

    @classmethod
    def all_kv_bytes(cls, config: Any, specs: list[dict[str, Any]], size: CacheSize) -> int:
        full = full_layer_count(specs[0], len(specs))
        kept = full * FullAttention.kv_bytes(config, specs[0], size)
        return kept + (len(specs) - full) * StreamingAttention.kv_bytes(config, specs[0], size)
