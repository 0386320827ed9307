"""Local attention: a span for each head, and a correction for what lies before it.

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
    key_value_bytes,
    one_query_attention,
)
from layerwright.tasks.hybrid.mixers.full import EVERYTHING
from layerwright.tasks.hybrid.mixers.local_cache import LocalCacheLayer, Seen, far_room, of_heads
from layerwright.tasks.hybrid.mixers.streaming import POSITION_BYTES, kept_positions
from layerwright.tasks.hybrid.placement import Placement

CORRECTIONS = ("none", "block_mean")
KEY_MEANS = ("rotated", "unrotated")
SUM_BYTES = 4  # fp32


class LocalAttention(AttentionMixer):
    """o = (e^lw o_w + e^lf o_f) / (e^lw + e^lf): the span one by one, what is before it in blocks.

    Query i sees key j by itself where 0 <= j <= i and (j >= edge or j < S), with
    edge = max(i - z + 1, 0) for the span z of its head. With correction "block_mean" the edge is
    rounded down to a block's start, and each block of n positions before it, sinks excluded, is one
    more key: the mean of its keys and of its values, its score raised by the log of its count.
    That score is at most the log-sum-exp of its keys' own scores (Jensen) for "rotated" means.

    With "widen" a query whose visible keys are estimated to cover less than that share of its
    attention, e^lw / (e^lw + e^lf), attends to all earlier keys instead, head by head. It goes to
    all of them at once and not by steps: they lie in host memory and are fetched in one piece.

    With "ramp" the span is soft, for training: weights are multiplied by
    clamp((R + z - x) / R, 0, 1) at distance x = i - j, and z = (spans - R) · `span` is trained
    (arXiv 1905.07799, eq. 5). The spec's spans bound z + R, so the cache is what it was.

    Spec: {"kind": "local", "spans": z >= 1 for all key/value heads or a list with one each,
    "sinks": S >= 0, "correction": "none" or "block_mean"}; with "none" also "ramp": R >= 1 or
    null; with "block_mean" also "block": n >= 1, "key_mean": "rotated" or "unrotated" (averaged
    before the rotation, and turned to where the block's middle stands), "widen": a share in (0, 1)
    or null.

    Attributes:
        span: (G,) share of each head's longest soft span, 1 at first; None without a ramp.
    """

    kind = "local"

    def __init__(self, config, spec, layer_idx: int, donor=None):
        super().__init__(config, spec, layer_idx, donor)
        check_heads(config, spec["spans"])
        self.groups = span_groups(spec["spans"])
        self.key_heads = config.num_key_value_heads
        self.span: nn.Parameter | None = None
        if spec.get("ramp"):
            shared = isinstance(donor, LocalAttention) and donor.spec == self.spec
            self.span = donor.span if shared else nn.Parameter(torch.ones(self.key_heads))

    def forward(self, hidden_BTD: Tensor, placement: Placement, cache=None) -> Tensor:
        spec, positions = self.spec, placement.stored_positions
        if cache is not None and spec.get("widen"):
            self._prefetch_next(cache)
        q, k, v = self.heads(hidden_BTD)
        q, rotated = apply_rotary_pos_emb(q, k, *placement.rotary)
        summed = None
        if spec["correction"] == "block_mean":
            summed = rotated if spec["key_mean"] == "rotated" else k
        if cache is None:
            layer = self.cache_layer(spec)
            if summed is not None:
                layer.add_to_sums(summed, v, positions)
            seen = [Seen(*of_heads(rotated, v, heads), positions) for _, heads in self.groups]
        else:
            layer = cache.layers[self.layer_idx]
            seen = cache.update(rotated, v, self.layer_idx, positions=positions, summed_keys=summed)
        means = None if summed is None else self._means(layer, placement)
        out_BHTd = self._attend_heads(q, seen, means, placement)
        return self.o_proj(out_BHTd.transpose(1, 2).flatten(2))

    def soft_spans(self) -> Tensor | None:
        """z in tokens (G,), to be penalised in training; None without a ramp.

        Held in [0, spans - R] with the gradient of an unbounded z, so that none is lost at an end.
        """
        if self.span is None:
            return None
        share = self.span.to(torch.promote_types(self.span.dtype, torch.float32))
        share = share + (share.clamp(0, 1) - share).detach()
        return share * (torch.tensor(self.spec["spans"], device=share.device) - self.spec["ramp"])

    def _prefetch_next(self, cache) -> None:
        """Lets the far keys of the next local layer come while this one is computed."""
        for layer in cache.layers[self.layer_idx + 1 :]:
            if isinstance(layer, LocalCacheLayer):
                layer.prefetch()
                return

    def _means(self, layer: LocalCacheLayer, placement: Placement) -> BlockMeans:
        """Means of the blocks; of one that is not whole yet, and so never seen, anything."""
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
        self, q_BHTd: Tensor, seen: list[Seen], means: BlockMeans | None, placement: Placement
    ) -> Tensor:
        """Attention output (B, H, T, d), the heads of each span together."""
        lengths = self.soft_spans()
        outs = []
        for (span, heads), held in zip(self.groups, seen, strict=True):
            q, own, soft = q_BHTd, means, lengths
            if heads is not None:
                q = q_BHTd.unflatten(1, (self.key_heads, -1))[:, heads].flatten(1, 2)
                soft = None if lengths is None else lengths[heads]
                if means is not None:
                    keys, values = of_heads(means.keys, means.values, heads)
                    own = means._replace(keys=keys, values=values)
            soft = None if soft is None else SoftSpan(soft, self.spec["ramp"])
            outs.append(self._attend_span(q, held, span, own, soft, placement))
        if len(outs) == 1:
            return outs[0]
        order = torch.tensor([head for _, heads in self.groups for head in heads]).argsort()
        by_head = [
            out.unflatten(1, (len(heads), -1))
            for out, (_, heads) in zip(outs, self.groups, strict=True)
        ]
        return torch.cat(by_head, dim=1)[:, order].flatten(1, 2)

    def _attend_span(
        self,
        q_BhTd: Tensor,
        held: Seen,
        span: int,
        means: BlockMeans | None,
        soft: SoftSpan | None,
        placement: Placement,
    ) -> Tensor:
        """The same for the h query heads of one span."""
        sinks, tokens, widen = self.spec["sinks"], q_BhTd.shape[2], self.spec.get("widen")
        if not placement.contiguous:
            q_positions, k_positions = placement.positions, held.positions
        elif tokens == 1 and means is None and soft is None:
            # the cache keeps exactly what a single query sees
            return one_query_attention(q_BhTd, held.keys, held.values)
        else:
            # On the CPU whatever the device: the operators then plan without waiting for it.
            past = placement.past_tokens
            q_positions = torch.arange(past, past + tokens)[None]
            kept = kept_positions(past, sinks, ring_window(self.spec, span))
            k_positions = torch.cat([kept, q_positions], dim=1)
        args = q_BhTd, held.keys, held.values, q_positions, k_positions, sinks, span, means, soft
        if not widen:
            return local_attention(*args)
        out, lse, lse_far = local_attention(*args, return_lse=True)
        narrow_BhT = (lse - lse_far).sigmoid() < widen  # not so where a padding query sees nothing
        return self._widened(out, narrow_BhT, q_BhTd, held, q_positions, k_positions)

    def _widened(
        self, out_BhTd, narrow_BhT, q_BhTd, held: Seen, q_positions_RT, k_positions_RK
    ) -> Tensor:
        """The output with that of full attention where a query's span was too narrow."""
        queries = narrow_BhT.any(0).any(0).nonzero()[:, 0]
        if not len(queries):
            return out_BhTd
        keys, values = held.keys, held.values
        if held.far is not None:
            far_keys, far_values = held.far.permute(1, 2, 3, 0, 4)
            keys, values = torch.cat([far_keys, keys], 2), torch.cat([far_values, values], 2)
            far_positions = held.far_positions
            if far_positions is None:
                sinks = self.spec["sinks"]
                far_positions = torch.arange(sinks, sinks + len(held.far))[None]
            k_positions_RK = torch.cat([far_positions, k_positions_RK], dim=1)
        full = streaming_attention(
            *(q_BhTd[:, :, queries], keys, values),
            *(q_positions_RT[:, queries.to(q_positions_RT.device)], k_positions_RK),
            sinks=0,
            window=EVERYTHING,
        )
        chosen = torch.where(narrow_BhT[:, :, queries, None], full, out_BhTd[:, :, queries])
        return out_BhTd.index_copy(2, queries, chosen)

    @classmethod
    def check_parameters(cls, parameters: dict[str, Any]) -> None:
        correction = parameters.get("correction")
        if correction not in CORRECTIONS:
            raise ValueError(f"correction must be one of {list(CORRECTIONS)}, got {correction!r}")
        names = {"spans", "sinks", "correction"}
        names |= {"ramp"} if correction == "none" else {"block", "key_mean", "widen"}
        if set(parameters) != names:
            raise ValueError(
                f"with correction {correction!r} it takes {sorted(names)}, got {sorted(parameters)}"
            )
        spans = parameters["spans"]
        spans = spans if isinstance(spans, list) else [spans]
        whole = [("spans", span, 1) for span in spans] + [("sinks", parameters["sinks"], 0)]
        whole += [(name, parameters[name], 1) for name in ("block", "ramp") if parameters.get(name)]
        if not spans:
            raise ValueError("spans must be a number, or a list with one for each key/value head")
        for name, value, least in whole:
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} must be a whole number >= {least}, got {value!r}")
        if correction == "none":
            ramp = parameters["ramp"]
            if ramp is not None and not 1 <= ramp <= min(spans):
                raise ValueError(f"ramp must lie between 1 and the least span, got {ramp!r}")
            return
        if parameters["key_mean"] not in KEY_MEANS:
            raise ValueError(
                f"key_mean must be one of {list(KEY_MEANS)}, got {parameters['key_mean']!r}"
            )
        if not parameters["block"]:
            raise ValueError(f"block must be a whole number >= 1, got {parameters['block']!r}")
        widen = parameters["widen"]
        if widen is not None and not (isinstance(widen, float) and 0 < widen < 1):
            raise ValueError(f"widen must be a share between 0 and 1, or null, got {widen!r}")

    @classmethod
    def reach_tokens(cls, spec) -> int:
        """Sinks and the widest span; what only widening can reach is for recall to test."""
        return spec["sinks"] + max(
            ring_window(spec, span) for span, _ in span_groups(spec["spans"])
        )

    @classmethod
    def cache_layer(cls, spec) -> LocalCacheLayer:
        spans, heads = zip(*span_groups(spec["spans"]), strict=True)
        windows = [ring_window(spec, span) for span in spans]
        keep_far = spec.get("widen") is not None
        return LocalCacheLayer(spec["sinks"], windows, list(heads), spec.get("block"), keep_far)

    @classmethod
    def kv_bytes(cls, config, spec, context_tokens, batch, element_bytes, padded=False) -> int:
        check_heads(config, spec["spans"])
        slot_bytes = key_value_bytes(config, element_bytes) // config.num_key_value_heads
        position_bytes = POSITION_BYTES if padded else 0
        total = 0
        for span, heads in span_groups(spec["spans"]):
            head_slot = slot_bytes * (config.num_key_value_heads if heads is None else len(heads))
            kept = min(context_tokens, spec["sinks"] + ring_window(spec, span) - 1)
            total += kept * (head_slot + position_bytes)
            if spec.get("widen") is not None:
                left = context_tokens - kept
                total += far_room(left) * head_slot + left * position_bytes
        if spec["correction"] == "block_mean":
            # a model in fp64 has sums in fp64; the counts of padded rows are fp32 always
            sums = key_value_bytes(config, max(SUM_BYTES, element_bytes))
            total += -(-context_tokens // spec["block"]) * (sums + (SUM_BYTES if padded else 0))
        return batch * total


def span_groups(spans: int | list[int]) -> list[tuple[int, list[int] | None]]:
    """Each distinct span, ascending, and the key/value heads that have it; None for all heads."""
    if isinstance(spans, int):
        return [(spans, None)]
    distinct = sorted(set(spans))
    if len(distinct) == 1:
        return [(distinct[0], None)]
    return [(span, [head for head, own in enumerate(spans) if own == span]) for span in distinct]


def ring_window(spec: dict[str, Any], span: int) -> int:
    """Tokens that a query sees one by one at most: the span, and a block less one below it."""
    return span + spec.get("block", 1) - 1


def check_heads(config, spans: int | list[int]) -> None:
    """Raises ValueError unless there is one span, or one for each key/value head."""
    heads = config.num_key_value_heads
    if isinstance(spans, list) and len(spans) != heads:
        raise ValueError(f"mixer 'local': {len(spans)} spans for {heads} key/value heads")
