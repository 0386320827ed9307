"""Streaming attention in torch, in blocks of queries: memory grows with Q, not with Q × K.

Shapes: B batch, H query heads, G key/value heads, Q queries, K keys, N keys gathered for one block,
P queries of one block, d head size, R is B or 1.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from layerwright.kernels.streaming_attention.reference import NEVER, Mask, visible_keys

# (start, stop) of a block of queries -> keys (B, G, N, d), values (B, G, N, d), positions (R, N)
Gather = Callable[[int, int], tuple[Tensor, Tensor, Tensor]]


def streaming_attention_blockwise(
    q_BHQd: Tensor,
    k_BGKd: Tensor,
    v_BGKd: Tensor,
    *mask: *Mask,
    return_lse: bool = False,
    sink_logits_H: Tensor | None = None,
    block: int | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Streaming attention; each block of queries reads only the sinks and its own range of keys.

    Differentiable. Args and returns are those of `streaming_attention`.

    Args:
        block: queries per block; by default 128 on a CPU (least work) and 1024 elsewhere (few
            launches). Memory holds about sinks + window + block keys and values at a time.
    """
    (q_positions_RQ, k_positions_RK, sinks, window), Q = mask, q_BHQd.shape[2]
    block = block or (128 if q_BHQd.device.type == "cpu" else 1024)
    q_positions, k_positions = (x.to(q_BHQd.device) for x in (q_positions_RQ, k_positions_RK))
    if _in_order(k_positions_RK) and _in_order(q_positions_RQ):
        gather = _range_gather(k_BGKd, v_BGKd, mask)
    else:
        q_BHQd = q_BHQd.masked_fill((q_positions < 0)[:, None, :, None], 0)
        if k_BGKd.shape[2] <= sinks + window + block:
            gather = _whole_gather(k_BGKd, v_BGKd, k_positions)
        else:
            placed = q_positions, k_positions, sinks, window
            gather = _row_gather(k_BGKd, v_BGKd, placed, block)

    parts = []
    for start in range(0, Q, block):
        stop = min(start + block, Q)
        keys, values, positions = gather(start, stop)
        visible_RPN = visible_keys(q_positions[:, start:stop], positions, sinks, window)
        q_BHPd = q_BHQd[:, :, start:stop]
        parts.append(_attend(q_BHPd, keys, values, visible_RPN, return_lse, sink_logits_H))
    results = tuple(torch.cat(part, dim=2) for part in zip(*parts, strict=True))
    return (results[0], results[1]) if return_lse else results[0]


def _in_order(positions_RT: Tensor) -> bool:
    """Whether all rows share one ascending row of positions without padding."""
    if positions_RT.shape[0] != 1 or positions_RT.shape[1] == 0:
        return False
    return bool(positions_RT[0, 0] >= 0) and bool((positions_RT[0].diff() > 0).all())


def _range_gather(k_BGKd: Tensor, v_BGKd: Tensor, mask: Mask) -> Gather:
    """Gathers a block's keys as two slices. All rows share one ascending row of positions."""
    sinks, window = mask[2:]
    queries, keys = (x[0].tolist() for x in mask[:2])
    k_positions_1K = mask[1].to(k_BGKd.device)
    sink_count = bisect_left(keys, sinks)

    def gather(start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
        first = bisect_left(keys, queries[start] - window + 1)
        last = bisect_right(keys, queries[stop - 1])
        if first <= sink_count:
            return k_BGKd[:, :, :last], v_BGKd[:, :, :last], k_positions_1K[:, :last]
        k, v = (
            torch.cat([x[:, :, :sink_count], x[:, :, first:last]], dim=2) for x in (k_BGKd, v_BGKd)
        )
        j = k_positions_1K
        return k, v, torch.cat([j[:, :sink_count], j[:, first:last]], dim=1)

    return gather


def _whole_gather(k_BGKd: Tensor, v_BGKd: Tensor, k_positions_RK: Tensor) -> Gather:
    """Gathers all keys for every block, when there are too few keys to select from."""
    padding = (k_positions_RK < 0)[:, None, :, None]
    keys, values = k_BGKd.masked_fill(padding, 0), v_BGKd.masked_fill(padding, 0)
    return lambda start, stop: (keys, values, k_positions_RK)


def _row_gather(k_BGKd: Tensor, v_BGKd: Tensor, mask: Mask, block: int) -> Gather:
    """Gathers a block's keys row by row, for any mixture of positions and padding.

    They are two ranges of a row's sorted positions; the widest range sets the common size.
    """
    (B, G, K, d), (q_positions_RQ, k_positions_RK, sinks, window) = k_BGKd.shape, mask
    rows = max(len(q_positions_RQ), len(k_positions_RK))
    sorted_RK, order_RK = k_positions_RK.masked_fill(k_positions_RK < 0, NEVER).sort(dim=1)
    sorted_RK, order_RK = (x.expand(rows, K).contiguous() for x in (sorted_RK, order_RK))

    blocks = F.pad(q_positions_RQ, (0, -q_positions_RQ.shape[1] % block), value=-1)
    blocks = blocks.expand(rows, -1).unflatten(1, (-1, block))
    low, high = blocks.masked_fill(blocks < 0, NEVER).amin(-1), blocks.amax(-1)
    sink_count_R1 = (sorted_RK < sinks).sum(dim=1, keepdim=True)
    # The range starts after the sinks, so that no key is gathered twice.
    first = torch.searchsorted(sorted_RK, low - window + 1).maximum(sink_count_R1)
    last = torch.searchsorted(sorted_RK, high, right=True)
    sink_slots = torch.arange(min(sinks, K), device=k_BGKd.device)
    range_slots = torch.arange(max(int((last - first).amax()), 0), device=k_BGKd.device)

    def gather(start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
        first_R1, last_R1 = (x[:, start // block, None] for x in (first, last))
        slots_RN = torch.cat([sink_slots.expand(rows, -1), first_R1 + range_slots], dim=1)
        valid_RN = torch.cat([sink_slots < sink_count_R1, first_R1 + range_slots < last_R1], dim=1)
        slots_RN = slots_RN.clamp_max(K - 1)
        positions_RN = sorted_RK.gather(1, slots_RN).masked_fill(~valid_RN, -1)
        index = order_RK.gather(1, slots_RN)[:, None, :, None].expand(B, G, -1, d)
        padding = (positions_RN < 0)[:, None, :, None]
        keys, values = (x.gather(2, index).masked_fill(padding, 0) for x in (k_BGKd, v_BGKd))
        return keys, values, positions_RN

    return gather


def _attend(
    q_BHPd: Tensor,
    k_BGNd: Tensor,
    v_BGNd: Tensor,
    visible_RPN: Tensor,
    return_lse: bool,
    sink_logits_H: Tensor | None,
) -> tuple[Tensor, ...]:
    """Masked attention of one block, (B, H, P, d), and the log-sum-exp if `return_lse`."""
    (B, H, P, d), (G, N) = q_BHPd.shape, k_BGNd.shape[1:3]
    score_dtype = torch.promote_types(q_BHPd.dtype, torch.float32)
    if N == 0:
        out = q_BHPd * 0
        lse = out.new_full((B, H, P), -torch.inf, dtype=score_dtype)
        return (out, lse) if return_lse else (out,)

    blind_RP1 = ~visible_RPN.any(-1, keepdim=True)
    # The query heads of one key head become rows of one product, so keys are not repeated.
    seen_R1pN = (visible_RPN | blind_RP1).repeat(1, H // G, 1)[:, None]
    q_BGpd = q_BHPd.reshape(B, G, -1, d)
    if not return_lse and sink_logits_H is None:
        out = F.scaled_dot_product_attention(q_BGpd, k_BGNd, v_BGNd, attn_mask=seen_R1pN)
        return (out.reshape(B, H, P, d).masked_fill(blind_RP1[:, None], 0),)
    scores = (q_BGpd.to(score_dtype) @ k_BGNd.to(score_dtype).mT) * d**-0.5
    scores = scores.masked_fill(~seen_R1pN, -torch.inf)
    lse = scores.logsumexp(-1).reshape(B, H, P)
    if sink_logits_H is not None:
        lse = lse.logaddexp(sink_logits_H.to(score_dtype)[:, None])
    weights = (scores - lse.reshape(B, G, -1, 1)).exp()
    out = (weights @ v_BGNd.to(score_dtype)).to(q_BHPd.dtype).reshape(B, H, P, d)
    out = out.masked_fill(blind_RP1[:, None], 0)
    return (out, lse.masked_fill(blind_RP1[:, None, :, 0], -torch.inf)) if return_lse else (out,)
