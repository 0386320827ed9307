"""Streaming attention written from its definition; tests compare every faster version with it.

Shapes: B batch, H query heads, G key/value heads, Q queries, K keys, d head size, R is B or 1.
"""

from typing import Any

import torch
from torch import Tensor

NEVER = torch.iinfo(torch.int64).max  # replaces padding in a minimum
Mask = tuple[Tensor, Tensor, int, int]  # positions of queries (R, Q) and keys (R, K), sinks, window


def visible_keys(q_positions_RQ: Tensor, k_positions_RK: Tensor, sinks: int, window: int) -> Tensor:
    """Mask (R, Q, K), true where 0 <= j <= i and (i - j < window or j < sinks).

    i and j are the absolute positions of query and key, int64, -1 for padding.
    """
    i, j = q_positions_RQ[:, :, None], k_positions_RK[:, None, :]
    return (j >= 0) & (j <= i) & ((i - j < window) | (j < sinks))


def streaming_attention_reference(
    q_BHQd: Tensor,
    k_BGKd: Tensor,
    v_BGKd: Tensor,
    *mask: *Mask,
    return_lse: bool = False,
    sink_logits_H: Tensor | None = None,
) -> Any:
    """Dense masked softmax, o = softmax(q kᵀ / sqrt(d) + log mask) v, in fp32 or fp64.

    Args and returns are those of `streaming_attention`. Allocates Q × K scores: for tests only.
    """
    r, d = q_BHQd.shape[1] // k_BGKd.shape[1], q_BHQd.shape[3]
    dtype = torch.promote_types(q_BHQd.dtype, torch.float32)
    i, j = (x.to(q_BHQd.device) for x in mask[:2])
    # A padding slot may hold NaN, and 0 * NaN is NaN, so padding is zeroed first.
    q = q_BHQd.to(dtype).masked_fill((i < 0)[:, None, :, None], 0)
    k, v = (
        x.to(dtype).masked_fill((j < 0)[:, None, :, None], 0).repeat_interleave(r, dim=1)
        for x in (k_BGKd, v_BGKd)
    )
    visible_R1QK = visible_keys(i, j, *mask[2:])[:, None]
    blind_R1Q1 = ~visible_R1QK.any(-1, keepdim=True)
    # A softmax over no key is NaN, so a blind query attends to all; then its output is zeroed.
    hidden_R1QK = ~(visible_R1QK | blind_R1Q1)
    scores = ((q @ k.mT) * d**-0.5).masked_fill(hidden_R1QK, -torch.inf)
    lse = scores.logsumexp(-1)
    if sink_logits_H is not None:
        lse = lse.logaddexp(sink_logits_H.to(dtype)[:, None])
    out = (scores - lse[..., None]).exp() @ v
    out = out.masked_fill(blind_R1Q1, 0).to(q_BHQd.dtype)
    return (out, lse.masked_fill(blind_R1Q1[..., 0], -torch.inf)) if return_lse else out
