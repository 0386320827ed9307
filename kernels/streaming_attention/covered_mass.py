"""How much of full causal attention falls on the keys that streaming attention would see.

Shapes: B batch, H query heads, G key/value heads, Q queries, K keys, d head size, R is B or 1.
"""

import torch
from torch import Tensor

from kernels.streaming_attention.reference import visible_keys


def covered_mass(
    q_BHQd: Tensor,
    k_BGKd: Tensor,
    sinks: int,
    window: int,
    q_positions_RQ: Tensor | None = None,
    k_positions_RK: Tensor | None = None,
) -> Tensor:
    """Attention mass of each query on sinks and window (arXiv 2410.13846, section 3.2).

    sum over visible j of A(i, j) = exp(logsumexp of the visible scores - logsumexp of all scores),
    where "all" is 0 <= j <= i. Its mean over heads and a prompt's last queries is the lazy ratio.
    Q x K scores exist at a time: meant for few queries.

    Args:
        q_BHQd: rotated queries; H / G heads share a key head.
        k_BGKd: rotated keys.
        sinks, window: as in `streaming_attention`.
        q_positions_RQ, k_positions_RK: absolute positions, int64, -1 for padding; by default the
            keys stand at 0 .. K - 1 and the queries at the last Q of these.

    Returns:
        (B, H, Q) in fp32 (fp64 for fp64 inputs); 0 for a query that is padding. Exactly 1 where
        nothing lies outside sinks and window.
    """
    B, H, Q, d = q_BHQd.shape
    G, K = k_BGKd.shape[1:3]
    if k_positions_RK is None:
        k_positions_RK = torch.arange(K, device=q_BHQd.device)[None]
        q_positions_RQ = k_positions_RK[:, K - Q :]
    dtype = torch.promote_types(q_BHQd.dtype, torch.float32)
    grouped = q_BHQd.to(dtype).reshape(B, G, H // G * Q, d)  # the group's heads become rows
    scores = (grouped @ k_BGKd.to(dtype).mT * d**-0.5).view(B, H, Q, K)
    keys, queries = k_positions_RK[:, None, :], q_positions_RQ[:, :, None]
    causal_R1QK = ((keys >= 0) & (keys <= queries))[:, None]
    visible_R1QK = visible_keys(q_positions_RQ, k_positions_RK, sinks, window)[:, None]
    everything = scores.masked_fill(~causal_R1QK, -torch.inf).logsumexp(-1)
    covered = scores.masked_fill_(~visible_R1QK, -torch.inf).logsumexp(-1)
    return torch.exp(covered - everything).masked_fill(q_positions_RQ[:, None] < 0, 0)
