"""Streaming attention written from its definition; tests compare every faster version with it.

Shapes: B batch, H query heads, G key/value heads, Q queries, K keys, d head size, R is B or 1.
"""

import torch
from torch import Tensor


def visible_keys(q_positions_RQ: Tensor, k_positions_RK: Tensor, sinks: int, window: int) -> Tensor:
    """Mask of the keys that each query sees.

    visible(i, j) = 0 <= j <= i and (i - j < window or j < sinks), with absolute positions i and j.

    Args:
        q_positions_RQ: positions of the queries, int64, -1 for padding.
        k_positions_RK: positions of the keys, int64, -1 for padding.
        sinks: number of first positions that stay visible.
        window: number of last positions that are visible, the query's own included.

    Returns:
        Boolean tensor (R, Q, K).
    """
    i = q_positions_RQ[:, :, None]
    j = k_positions_RK[:, None, :]
    return (j >= 0) & (j <= i) & ((i - j < window) | (j < sinks))


def streaming_attention_reference(
    q_BHQd: Tensor,
    k_BGKd: Tensor,
    v_BGKd: Tensor,
    q_positions_RQ: Tensor,
    k_positions_RK: Tensor,
    sinks: int,
    window: int,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Dense masked softmax, o = softmax(q kᵀ / sqrt(d) + log mask) v, in fp32 or fp64.

    Args and returns are those of `streaming_attention`. Allocates Q × K scores: for tests only.
    """
    H, d = q_BHQd.shape[1], q_BHQd.shape[3]
    G = k_BGKd.shape[1]
    dtype = torch.promote_types(q_BHQd.dtype, torch.float32)
    device = q_BHQd.device
    q_positions_RQ, k_positions_RK = q_positions_RQ.to(device), k_positions_RK.to(device)
    padding_R1Q1 = (q_positions_RQ < 0)[:, None, :, None]
    padding_R1K1 = (k_positions_RK < 0)[:, None, :, None]
    # A padding slot may hold NaN, and 0 * NaN is NaN, so padding is zeroed first.
    q = q_BHQd.to(dtype).masked_fill(padding_R1Q1, 0)
    k = k_BGKd.to(dtype).masked_fill(padding_R1K1, 0).repeat_interleave(H // G, dim=1)
    v = v_BGKd.to(dtype).masked_fill(padding_R1K1, 0).repeat_interleave(H // G, dim=1)

    visible_R1QK = visible_keys(q_positions_RQ, k_positions_RK, sinks, window)[:, None]
    blind_R1Q1 = ~visible_R1QK.any(-1, keepdim=True)
    # A softmax over no key is NaN: a query without visible keys attends to all, then its output is
    # zeroed.
    hidden_R1QK = ~(visible_R1QK | blind_R1Q1)
    scores = ((q @ k.transpose(-1, -2)) * d**-0.5).masked_fill(hidden_R1QK, -torch.inf)
    out = (scores.softmax(-1) @ v).masked_fill(blind_R1Q1, 0).to(q_BHQd.dtype)
    if not return_lse:
        return out
    return out, scores.logsumexp(-1).masked_fill(blind_R1Q1[..., 0], -torch.inf)
