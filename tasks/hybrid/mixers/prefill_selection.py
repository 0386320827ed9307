"""Lazy layers found while a prompt is read: all but the P least lazy lose what is far away.

LightTransfer's test mode (arXiv 2410.13846, section 3): the prompt is read with full attention in
every layer; what is decided is which layers decode with sinks and window alone. So what a cache
says after a prompt is not what one pass over prompt and answer would say: the contract is that
deciding gives the numbers of the same selection made beforehand (`HybridCache(selection=...)`).
Shapes: B batch, T new tokens, K slots, Q queries, H query heads, G key/value heads, d head size.
"""

import torch
from torch import Tensor

from layerwright.kernels.covered_mass import covered_mass
from layerwright.kernels.streaming_attention import streaming_attention
from layerwright.tasks.hybrid.mixers.attention import one_query_attention
from layerwright.tasks.hybrid.mixers.full import FullAttention
from layerwright.tasks.hybrid.mixers.selective_cache import SelectiveCacheLayer, VisibleRows
from layerwright.tasks.hybrid.mixers.streaming import StreamingAttention
from layerwright.tasks.hybrid.placement import Placement

LEAST = {"full_layers": 0, "sinks": 0, "window": 1, "last_queries": 1}


def full_layer_count(spec: dict, layers: int) -> int:
    """How many of `layers` competing layers keep all keys; half, rounded up, by default."""
    wanted = spec["full_layers"]
    return min(layers - layers // 2 if wanted is None else wanted, layers)


class PrefillSelection(FullAttention):
    """Spec: {"kind": "prefill_selection", "full_layers": P, "sinks": S, "window": W,
    "last_queries": w}, the same in all layers of this kind; P None means half of them, rounded up.

    Without a cache it is full attention. With one, the first pass is the prompt, whole; after that
    come single tokens, each row of which sees all keys in P of the layers and the first S and last
    W in the others, at their original positions. Several tokens at once would need a decision that
    was made without them, and are refused (HybridCache.update).
    """

    kind = "prefill_selection"
    croppable = False
    decides_together = True

    def attend(
        self, q_BHTd: Tensor, k_BGTd: Tensor, v_BGTd: Tensor, placement: Placement, cache=None
    ) -> Tensor:
        if cache is None:
            return super().attend(q_BHTd, k_BGTd, v_BGTd, placement)
        states = (k_BGTd, v_BGTd, self.layer_idx, placement.stored_positions)
        if placement.past_tokens == 0:
            out_BHTd = super().attend(q_BHTd, k_BGTd, v_BGTd, placement)
            cache.update(*states, lazy_ratios=self.lazy_ratios(q_BHTd, k_BGTd, placement))
            return out_BHTd
        full, trimmed = cache.update(*states)
        out_BH1d = torch.empty_like(q_BHTd)
        if full is not None:
            q, mask = _of_rows(full, q_BHTd, placement.causal_mask)
            _put_rows(out_BH1d, full, one_query_attention(q, full.keys, full.values, mask))
        if trimmed is not None:
            _put_rows(out_BH1d, trimmed, self._streaming(trimmed, q_BHTd, placement))
        return out_BH1d

    def _streaming(self, seen: VisibleRows, q_BH1d: Tensor, placement: Placement) -> Tensor:
        if placement.contiguous:  # the cache keeps exactly what a single query sees
            return one_query_attention(*_of_rows(seen, q_BH1d), seen.keys, seen.values)
        q, positions = _of_rows(seen, q_BH1d, placement.positions)
        sinks, window = self.spec["sinks"], self.spec["window"]
        return streaming_attention(
            q, seen.keys, seen.values, positions, seen.positions, sinks, window
        )

    @torch.no_grad()
    def lazy_ratios(self, q_BHTd: Tensor, k_BGTd: Tensor, placement: Placement) -> list[float]:
        """Lazy ratio of each row of a prompt: mean of `covered_mass` over heads and last queries.

        The last queries are each row's own last w real tokens, or all where it has fewer.
        """
        sinks, window = self.spec["sinks"], self.spec["window"]
        count = min(self.spec["last_queries"], q_BHTd.shape[2])
        if placement.contiguous:
            (mass_BHQ,) = covered_mass(q_BHTd[:, :, -count:], k_BGTd, (window,), sinks)
            return mass_BHQ.mean((1, 2)).tolist()
        last_BQ, slots_BQ = placement.positions.topk(count, dim=1)  # padding, -1, comes last
        index = slots_BQ[:, None, :, None].expand(-1, q_BHTd.shape[1], -1, q_BHTd.shape[3])
        q_BHQd = q_BHTd.gather(2, index)
        places = last_BQ, placement.positions
        (mass_BHQ,) = covered_mass(q_BHQd, k_BGTd, (window,), sinks, *places)
        real_B = (last_BQ >= 0).sum(1).clamp_min(1)
        return (mass_BHQ.mean(1).sum(1) / real_B).tolist()

    @classmethod
    def check_parameters(cls, parameters) -> None:
        if set(parameters) != set(LEAST):
            raise ValueError(f"takes {', '.join(map(repr, LEAST))}, got {sorted(parameters)}")
        for name, least in LEAST.items():
            value = parameters[name]
            if name == "full_layers" and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} must be a whole number >= {least}, got {value!r}")

    @classmethod
    def reach_tokens(cls, spec) -> int:
        return spec["sinks"] + spec["window"]

    @classmethod
    def cache_layer(cls, spec) -> SelectiveCacheLayer:
        return SelectiveCacheLayer(spec["sinks"], spec["window"])

    @classmethod
    def kv_bytes(cls, config, spec, context_tokens, batch, element_bytes, padded=False) -> int:
        """One layer's share of what the competing layers hold together, rounded.

        In a model without such layers, the share if all its layers competed.
        """
        competing = sum(other["mixer"]["kind"] == cls.kind for other in config.layer_specs)
        layers = competing or config.num_hidden_layers
        sizes = (context_tokens, batch, element_bytes, padded)
        return round(cls.all_kv_bytes(config, [spec] * layers, *sizes) / layers)

    @classmethod
    def all_kv_bytes(cls, config, specs, context_tokens, batch, element_bytes, padded=False) -> int:
        full = full_layer_count(specs[0], len(specs))
        sizes = (context_tokens, batch, element_bytes, padded)
        return full * FullAttention.kv_bytes(config, specs[0], *sizes) + (
            len(specs) - full
        ) * StreamingAttention.kv_bytes(config, specs[0], *sizes)


def _of_rows(seen: VisibleRows, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """The rows' part of each tensor (B, ...); None stays None."""
    if seen.rows is None:
        return tensors
    return tuple(None if x is None else x[seen.rows] for x in tensors)


def _put_rows(out_BH1d: Tensor, seen: VisibleRows, values: Tensor) -> None:
    out_BH1d[slice(None) if seen.rows is None else seen.rows] = values
