"""Local attention in torch, in blocks of queries: memory grows with Q, not with Q × K.

Shapes: B batch, H query heads, G key/value heads, Q queries, K keys, P queries of one block, N keys
gathered for it, F blocks of keys, d head size, R is B or 1.
"""

import torch
from torch import Tensor

from layerwright.kernels.local_attention.reference import (
    BlockMeans,
    SoftSpan,
    log_ramp,
    lower_edge,
    visible_blocks,
    visible_keys,
)
from layerwright.kernels.streaming_attention import streaming_attention
from layerwright.kernels.streaming_attention.reference import NEVER

Reach = tuple[int, int, BlockMeans | None]  # sinks, span, means


def local_attention_blockwise(
    q_BHQd: Tensor,
    k_BGKd: Tensor,
    v_BGKd: Tensor,
    q_positions_RQ: Tensor,
    k_positions_RK: Tensor,
    sinks: int,
    span: int,
    means: BlockMeans | None = None,
    soft: SoftSpan | None = None,
    return_lse: bool = False,
    together: int | None = None,
) -> Tensor | tuple[Tensor, Tensor, Tensor]:
    """Local attention; each block of queries reads only its span of keys and the far blocks.

    Exact keys and far blocks share one softmax, which equals the merge of two softmaxes. Without
    means and ramp this is streaming attention. Differentiable. Args and returns are those of
    `local_attention`.

    Args:
        together: queries per block; by default 128 on a CPU and 512 elsewhere.
    """
    if means is None and soft is None:
        positions = q_positions_RQ, k_positions_RK
        result = streaming_attention(q_BHQd, k_BGKd, v_BGKd, *positions, sinks, span, return_lse)
        if not return_lse:
            return result
        out, lse = result
        return out, lse, torch.full_like(lse, -torch.inf)
    together = together or (128 if q_BHQd.device.type == "cpu" else 512)
    k_positions_RK = k_positions_RK.to(q_positions_RQ.device)
    q_BHQd = q_BHQd.masked_fill((q_positions_RQ.to(q_BHQd.device) < 0)[:, None, :, None], 0)
    parts = []
    blocks = zip(q_BHQd.split(together, 2), q_positions_RQ.split(together, 1), strict=True)
    reach = sinks, span, means
    for queries, q_positions in blocks:
        gathered = _gather(k_BGKd, v_BGKd, q_positions, k_positions_RK, reach)
        parts.append(_attend(queries, q_positions, *gathered, reach, soft, return_lse))
    out, *lses = (torch.cat(part, dim=2) for part in zip(*parts, strict=True))
    return (out, lses[0], lses[1]) if return_lse else out


def _gather(
    k_BGKd: Tensor, v_BGKd: Tensor, q_positions_RP: Tensor, k_positions_RK: Tensor, reach: Reach
) -> tuple[Tensor, Tensor, Tensor]:
    """Keys and values (B, G, N, d) that the block's queries may see, and their positions (R, N)."""
    sinks, span, means = reach
    size = means.size if means else 1
    B, G, K, d = k_BGKd.shape
    low_R1 = q_positions_RP.masked_fill(q_positions_RP < 0, NEVER).amin(1, keepdim=True)
    high_R1 = q_positions_RP.amax(1, keepdim=True)
    j = k_positions_RK
    visible_RK = (j >= 0) & (j <= high_R1) & ((j >= lower_edge(low_R1, span, size)) | (j < sinks))
    if len(visible_RK) == 1:
        if visible_RK.all():
            return k_BGKd, v_BGKd, j
        slots = visible_RK[0].nonzero()[:, 0]
        index = slots.to(k_BGKd.device)
        return k_BGKd.index_select(2, index), v_BGKd.index_select(2, index), j[:, slots]
    N = int(visible_RK.sum(1).amax())
    slots_RN = visible_RK.int().argsort(dim=1, descending=True, stable=True)[:, :N]
    chosen_RN = visible_RK.gather(1, slots_RN)
    positions_RN = j.expand(len(visible_RK), K).gather(1, slots_RN).masked_fill(~chosen_RN, -1)
    index = slots_RN.to(k_BGKd.device)[:, None, :, None].expand(B, G, N, d)
    # Shorter rows are filled with arbitrary slots, which may hold NaN.
    empty_R1N1 = ~chosen_RN.to(k_BGKd.device)[:, None, :, None]
    keys, values = (x.gather(2, index).masked_fill(empty_R1N1, 0) for x in (k_BGKd, v_BGKd))
    return keys, values, positions_RN


def _attend(
    q_BHPd: Tensor,
    q_positions_RP: Tensor,
    k_BGNd: Tensor,
    v_BGNd: Tensor,
    k_positions_RN: Tensor,
    reach: Reach,
    soft: SoftSpan | None,
    return_lse: bool,
) -> tuple[Tensor, ...]:
    """One softmax over gathered keys and far blocks; if `return_lse`, also both log-sum-exps."""
    (B, H, P, d), (G, N), (sinks, span, means) = q_BHPd.shape, k_BGNd.shape[1:3], reach
    device, dtype = q_BHPd.device, torch.promote_types(q_BHPd.dtype, torch.float32)
    size = means.size if means else 1
    visible = visible_keys(q_positions_RP, k_positions_RN, sinks, span, size)
    visible = visible.to(device)[:, None]  # (R, 1 or G, P, N)
    logs: Tensor | float = 0.0
    if soft is not None:
        i, j = q_positions_RP.to(device), k_positions_RN.to(device)
        logs, above_zero = log_ramp(soft, i, j, sinks)
        visible = visible & above_zero
    bias = torch.where(visible, 0.0, -torch.inf).to(dtype) + logs
    keys, values = k_BGNd.to(dtype), v_BGNd.to(dtype)
    if means is not None:
        far = int(lower_edge(q_positions_RP, span, means.size).amax()) // means.size
        counts_RF = means.counts[:, :far].to(device, dtype)
        blocks = visible_blocks(q_positions_RP.to(device), counts_RF, span, means.size)[:, None]
        far_bias = counts_RF.log()[:, None, None].masked_fill(~blocks, -torch.inf)
        rows = max(len(bias), len(far_bias))
        far_bias = far_bias.expand(rows, bias.shape[1], -1, -1)
        bias = torch.cat([bias.expand(rows, -1, -1, -1), far_bias], dim=3)
        keys = torch.cat([keys, means.keys[:, :, :far].to(dtype)], dim=2)
        values = torch.cat([values, means.values[:, :, :far].to(dtype)], dim=2)

    # The query heads of one key head become rows of one product, so keys are not repeated.
    q_BGpd = q_BHPd.to(dtype).reshape(B, G, -1, d) * d**-0.5
    blind = bias.isneginf().all(-1, keepdim=True)[:, :, None]  # (R, 1 or G, 1, P, 1)
    scores = (q_BGpd @ keys.mT).unflatten(2, (-1, P)) + bias[:, :, None].masked_fill(blind, 0)
    out = (scores.softmax(-1).flatten(2, 3) @ values).unflatten(2, (-1, P)).masked_fill(blind, 0)
    out = out.reshape(B, H, P, d).to(q_BHPd.dtype)
    lses = []
    for part in (slice(0, N), slice(N, None)) if return_lse else ():
        # -inf, without gradient, where all scores are hidden
        blind = bias[:, :, None, :, part].isneginf().all(-1, keepdim=True)
        lse = scores[..., part].masked_fill(blind, 0).logsumexp(-1)
        lses.append(lse.masked_fill(blind[..., 0], -torch.inf).reshape(B, H, P))
    return out, *lses
