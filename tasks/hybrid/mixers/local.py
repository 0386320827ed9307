"""Local attention: a sliding window (span) for each head, and a correction for earlier tokens.

Shapes: B batch, T new tokens, K keys, F blocks, H query heads, G key/value heads, g heads of one
span, d head size.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from layerwright.kernels.local_attention import BlockMeans, SoftSpan, local_attention
from layerwright.kernels.streaming_attention import streaming_attention
from layerwright.tasks.hybrid.mixers.attention import (
    AttentionMixer,
    CacheSize,
    check_whole,
    key_value_bytes,
    one_query_attention,
)
from layerwright.tasks.hybrid.mixers.full import UNLIMITED
from layerwright.tasks.hybrid.mixers.local_cache import (
    LocalCacheLayer,
    Seen,
    far_capacity,
    select_heads,
)
from layerwright.tasks.hybrid.mixers.streaming import POSITION_BYTES, host_positions
from layerwright.tasks.hybrid.placement import Placement

CORRECTIONS = ("none", "block_mean")
KEY_MEANS = ("rotated", "unrotated")
SUM_BYTES = 4  # fp32


class LocalAttention(AttentionMixer):
    """o = (e^lw o_w + e^lf o_f) / (e^lw + e^lf): exact keys within the span, block means before it.

    Query i sees key j exactly if 0 <= j <= i and (j >= edge or j < S), with
    edge = max(i - z + 1, 0) for the span z of its head. With correction "block_mean" the edge is
    rounded down to the start of a block. Each block of n positions before the edge, without sinks,
    is one more key: the mean of its keys and of its values, with the log of its count added to the
    score. For "rotated" means this score is at most the log-sum-exp of the scores of the block's
    keys (Jensen's inequality).

    With "widen", a head's query attends to all earlier keys if the estimated share of its attention
    on the exact keys, e^lw / (e^lw + e^lf), is below that value. Far keys are in host memory.

    With "ramp" the span is soft, for training: weights are multiplied by
    clamp((R + z - x) / R, 0, 1) at distance x = i - j, and z = (spans - R) · `span` is trained
    (arXiv 1905.07799, eq. 5). The spec's spans limit z + R, so the cache keeps its size.

    Spec: {"kind": "local", "spans": z >= 1 for all key/value heads or a list with one value each,
    "sinks": S >= 0, "correction": "none" or "block_mean"}. With "none" also "ramp": R >= 1 or null.
    With "block_mean" also "block": n >= 1, "key_mean": "rotated" or "unrotated" (averaged before
    the rotation, then rotated to the block's middle), "widen": a share in (0, 1) or null.

    Attributes:
        span: (G,) the soft span as a share of its maximum, initially 1; None without a ramp.
    """

    kind = "local"

    def __init__(self, config: Any, spec: dict[str, Any], layer_idx: int, donor: Any = None):
        super().__init__(config, spec, layer_idx, donor)
        check_heads(config, spec["spans"])
        self.groups = span_groups(spec["spans"])
        self.key_heads = config.num_key_value_heads
        self.span: nn.Parameter | None = None
        if spec.get("ramp"):
            shared = isinstance(donor, LocalAttention) and donor.spec == self.spec
            self.span = donor.span if shared else nn.Parameter(torch.ones(self.key_heads))

    def forward(self, hidden_BTD: Tensor, placement: Placement, cache: Any = None) -> Tensor:
        spec, positions = self.spec, placement.stored_positions
        if cache is not None and spec.get("widen"):
            # the next local layer's far keys are copied while this layer computes
            rest = cache.layers[self.layer_idx + 1 :]
            following = next((x for x in rest if isinstance(x, LocalCacheLayer)), None)
            if following is not None:
                following.prefetch()
        q, k, v = self.heads(hidden_BTD)
        q, rotated = apply_rotary_pos_emb(q, k, *placement.rotary)
        summed = None
        if spec["correction"] == "block_mean":
            summed = rotated if spec["key_mean"] == "rotated" else k
        if cache is None:
            layer = self.cache_layer(spec)
            if summed is not None:
                layer.add_to_sums(summed, v, positions)
            seen_by_span = [
                Seen(*select_heads(rotated, v, heads), positions) for _, heads in self.groups
            ]
        else:
            layer = cache.layers[self.layer_idx]
            seen_by_span = cache.update(
                rotated, v, self.layer_idx, positions=positions, summed_keys=summed
            )
        means = None if summed is None else self._means(layer, placement)
        return self.output(self._attend_heads(q, seen_by_span, means, placement))

    def soft_spans(self) -> Tensor | None:
        """z in tokens (G,), clamped to [0, spans - R] with the gradient of the unclamped value."""
        if self.span is None:
            return None
        share = self.span.to(torch.promote_types(self.span.dtype, torch.float32))
        share = share + (share.clamp(0, 1) - share).detach()
        return share * (torch.tensor(self.spec["spans"], device=share.device) - self.spec["ramp"])

    def _means(self, layer: LocalCacheLayer, placement: Placement) -> BlockMeans:
        """Means of the blocks. The mean of an incomplete block is never visible."""
        size, sinks, blocks = self.spec["block"], self.spec["sinks"], layer.key_sums.shape[2]
        counts_R1F1 = layer.counts
        if counts_R1F1 is None:
            counts_R1F1 = layer.counts_of(blocks * size, layer.key_sums.device)
        keys, values = (x / counts_R1F1.clamp_min(1) for x in (layer.key_sums, layer.value_sums))
        if self.spec["key_mean"] == "unrotated":
            starts = torch.arange(blocks, device=keys.device) * size
            middles = (starts.clamp_min(sinks) + starts + size - 1) / 2
            _, keys = apply_rotary_pos_emb(keys, keys, *placement.rotary_at(middles[None]))
        return BlockMeans(keys, values, counts_R1F1[:, 0, :, 0], size)

    def _attend_heads(
        self, q_BHTd: Tensor, by_span: list[Seen], means: BlockMeans | None, placement: Placement
    ) -> Tensor:
        """Attention output (B, H, T, d), computed for the heads of each span together."""
        lengths = self.soft_spans()
        outs = []
        for (span, heads), seen in zip(self.groups, by_span, strict=True):
            q, own, own_lengths = q_BHTd, means, lengths
            if heads is not None:
                q = q_BHTd.unflatten(1, (self.key_heads, -1))[:, heads].flatten(1, 2)
                own_lengths = None if lengths is None else lengths[heads]
                if means is not None:
                    keys, values = select_heads(means.keys, means.values, heads)
                    own = means._replace(keys=keys, values=values)
            soft = None if own_lengths is None else SoftSpan(own_lengths, self.spec["ramp"])
            outs.append(self._attend_span(q, seen, span, own, soft, placement))
        if len(outs) == 1:
            return outs[0]
        order = torch.tensor([head for _, heads in self.groups for head in heads or ()]).argsort()
        out_BHTd = torch.cat(outs, dim=1).unflatten(1, (self.key_heads, -1))
        return out_BHTd[:, order].flatten(1, 2)

    def _attend_span(
        self,
        q_BhTd: Tensor,
        seen: Seen,
        span: int,
        means: BlockMeans | None,
        soft: SoftSpan | None,
        placement: Placement,
    ) -> Tensor:
        """Attention output (B, h, T, d) of the h query heads of one span."""
        sinks, tokens = self.spec["sinks"], q_BhTd.shape[2]
        widen: Any = self.spec.get("widen")
        if seen.positions is not None:
            positions = placement.positions, seen.positions
        elif tokens == 1 and means is None and soft is None:
            # a single query sees all keys in the cache
            return one_query_attention(q_BhTd, seen.keys, seen.values)
        else:
            positions = host_positions(placement, tokens, sinks, cache_window(self.spec, span))
        args = q_BhTd, seen.keys, seen.values, *positions, sinks, span, means, soft
        result = local_attention(*args, return_lse=bool(widen))
        if isinstance(result, Tensor):
            return result
        out, lse, lse_far = result
        narrow_BhT = (lse - lse_far).sigmoid() < widen  # NaN, and so False, for padding queries
        return self._widened(out, narrow_BhT, q_BhTd, seen, *positions)

    def _widened(
        self,
        out_BhTd: Tensor,
        narrow_BhT: Tensor,
        q_BhTd: Tensor,
        seen: Seen,
        q_positions_RT: Tensor,
        k_positions_RK: Tensor,
    ) -> Tensor:
        """Replaces the output of queries whose span was too narrow by full attention."""
        queries = narrow_BhT.any(0).any(0).nonzero()[:, 0]
        if not len(queries):
            return out_BhTd
        keys, values = seen.keys, seen.values
        if seen.far is not None:
            far_keys, far_values = seen.far.permute(1, 2, 3, 0, 4)
            keys, values = torch.cat([far_keys, keys], 2), torch.cat([far_values, values], 2)
            far_positions = seen.far_positions
            if far_positions is None:
                sinks = self.spec["sinks"]
                far_positions = torch.arange(sinks, sinks + len(seen.far))[None]
            k_positions_RK = torch.cat([far_positions, k_positions_RK], dim=1)
        positions = q_positions_RT[:, queries.to(q_positions_RT.device)], k_positions_RK
        full = streaming_attention(q_BhTd[:, :, queries], keys, values, *positions, 0, UNLIMITED)
        widened_BhQd = torch.where(narrow_BhT[:, :, queries, None], full, out_BhTd[:, :, queries])
        return out_BhTd.index_copy(2, queries, widened_BhQd)

    @classmethod
    def check_parameters(cls, parameters: dict[str, Any]) -> None:
        correction = parameters.get("correction")
        if correction not in CORRECTIONS:
            raise ValueError(f"correction must be one of {list(CORRECTIONS)}, got {correction!r}")
        names = {"spans", "sinks", "correction"}
        names |= {"ramp"} if correction == "none" else {"block", "key_mean", "widen"}
        if set(parameters) != names:
            raise ValueError(
                f"correction {correction!r} takes {sorted(names)}, got {sorted(parameters)}"
            )
        spans, ramp = parameters["spans"], parameters.get("ramp")
        spans = spans if isinstance(spans, list) else [spans]
        if not spans:
            raise ValueError("spans must be a number, or a list with one for each key/value head")
        for span in spans:
            check_whole(1, spans=span)
        check_whole(0, sinks=parameters["sinks"])
        if ramp:
            check_whole(1, ramp=ramp)
        if ramp is not None and not 1 <= ramp <= min(spans):
            raise ValueError(f"ramp must be between 1 and the smallest span, got {ramp!r}")
        if correction == "none":
            return
        check_whole(1, block=parameters["block"])
        key_mean, widen = parameters["key_mean"], parameters["widen"]
        if key_mean not in KEY_MEANS:
            raise ValueError(f"key_mean must be one of {list(KEY_MEANS)}, got {key_mean!r}")
        if widen is not None and not (isinstance(widen, float) and 0 < widen < 1):
            raise ValueError(f"widen must be a share between 0 and 1, or null, got {widen!r}")

    @classmethod
    def reach_tokens(cls, spec: dict[str, Any]) -> int:
        spans = spec["spans"] if isinstance(spec["spans"], list) else [spec["spans"]]
        return spec["sinks"] + cache_window(spec, max(spans))

    @classmethod
    def cache_layer(cls, spec: dict[str, Any]) -> LocalCacheLayer:
        spans, heads = zip(*span_groups(spec["spans"]), strict=True)
        windows = [cache_window(spec, span) for span in spans]
        keep_far = spec.get("widen") is not None
        return LocalCacheLayer(spec["sinks"], windows, list(heads), spec.get("block"), keep_far)

    @classmethod
    def kv_bytes(cls, config: Any, spec: dict[str, Any], size: CacheSize) -> int:
        check_heads(config, spec["spans"])
        slot_bytes = key_value_bytes(config, size.element_bytes) // config.num_key_value_heads
        position_bytes = POSITION_BYTES if size.padded else 0
        total = 0
        for span, heads in span_groups(spec["spans"]):
            head_slot = slot_bytes * (config.num_key_value_heads if heads is None else len(heads))
            kept = min(size.context_tokens, spec["sinks"] + cache_window(spec, span) - 1)
            total += kept * (head_slot + position_bytes)
            if spec.get("widen") is not None:
                left = size.context_tokens - kept
                total += far_capacity(left) * head_slot + left * position_bytes
        if spec["correction"] == "block_mean":
            # fp64 models have fp64 sums; the counts of padded rows are always fp32
            sums = key_value_bytes(config, max(SUM_BYTES, size.element_bytes))
            sums += SUM_BYTES if size.padded else 0
            total += -(-size.context_tokens // spec["block"]) * sums
        return size.batch * total


def span_groups(spans: int | list[int]) -> list[tuple[int, list[int] | None]]:
    """Each distinct span, ascending, with its key/value heads; None for all heads."""
    if isinstance(spans, int):
        return [(spans, None)]
    distinct = sorted(set(spans))
    if len(distinct) == 1:
        return span_groups(distinct[0])
    return [(span, [head for head, own in enumerate(spans) if own == span]) for span in distinct]


def cache_window(spec: dict[str, Any], span: int) -> int:
    """Largest number of exact tokens of a query: the span, plus a block less one token."""
    return span + spec.get("block", 1) - 1


def check_heads(config: Any, spans: int | list[int]) -> None:
    """Raises ValueError unless there is one span, or one span for each key/value head."""
    heads = config.num_key_value_heads
    if isinstance(spans, list) and len(spans) != heads:
        raise ValueError(f"mixer 'local': got {len(spans)} spans for {heads} key/value heads")
