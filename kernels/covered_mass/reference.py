"""Covered mass in torch, with the scores of all queries in memory.

Shapes: B batch, H query heads, G key/value heads, Q queries, K keys, n spans, d head size, R is B
or 1.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from layerwright.kernels.streaming_attention.reference import visible_keys


def covered_mass_reference(
    q_BHQd: Tensor,
    k_BGKd: Tensor,
    spans: Sequence[int],
    sinks: int,
    q_positions_RQ: Tensor,
    k_positions_RK: Tensor,
) -> Tensor:
    """exp(logsumexp of visible scores - logsumexp of all scores), for each span: (n, B, H, Q).

    Args are those of `covered_mass`, positions required. Allocates Q × K scores.
    """
    (B, H, Q, d), (G, K) = q_BHQd.shape, k_BGKd.shape[1:3]
    dtype = torch.promote_types(q_BHQd.dtype, torch.float32)
    grouped = q_BHQd.to(dtype).reshape(B, G, -1, d)  # a group's heads are rows of one product
    scores = (grouped @ k_BGKd.to(dtype).mT * d**-0.5).view(B, H, Q, K)
    keys, queries = k_positions_RK[:, None, :], q_positions_RQ[:, :, None]
    scores.masked_fill_(~((keys >= 0) & (keys <= queries))[:, None], -torch.inf)
    everything = scores.logsumexp(-1)
    masses = []
    for span in spans:
        visible_R1QK = visible_keys(q_positions_RQ, k_positions_RK, sinks, span)[:, None]
        covered = scores.masked_fill(~visible_R1QK, -torch.inf).logsumexp(-1)
        masses.append(torch.exp(covered - everything))
    return torch.stack(masses).masked_fill(q_positions_RQ[:, None] < 0, 0)
