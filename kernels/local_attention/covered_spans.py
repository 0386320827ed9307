"""How much of full causal attention falls within each of several spans.

Shapes: B batch, H query heads, G key/value heads, Q queries, T tokens, d head size.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from kernels.local_attention.reference import visible_keys


def covered_spans(q_BHQd: Tensor, k_BGTd: Tensor, spans: Sequence[int], sinks: int) -> Tensor:
    """Attention mass of the last Q queries on the sinks and on each span.

    For each span the sum of A(i, j) over the visible j, A being the softmax over all j <= i: the
    covered mass of arXiv 2410.13846, section 3.2. Q x T scores exist at a time, never T x T.

    Args:
        q_BHQd: rotated queries of the last Q of T positions; H / G heads share a key head.
        k_BGTd: rotated keys of all T positions.
        spans: numbers of last positions, the query's own included.
        sinks: number of first positions that are always visible.

    Returns:
        (len(spans), B, H, Q) in fp32 (fp64 for fp64 inputs).
    """
    B, H, Q, d = q_BHQd.shape
    G, T = k_BGTd.shape[1:3]
    dtype = torch.promote_types(q_BHQd.dtype, torch.float32)
    grouped = q_BHQd.to(dtype).reshape(B, G, H // G * Q, d)  # the group's heads become rows
    scores = (grouped @ k_BGTd.to(dtype).mT * d**-0.5).view(B, H, Q, T)
    keys = torch.arange(T, device=q_BHQd.device)[None]
    queries = keys[:, T - Q :]
    shares = scores.masked_fill(~visible_keys(queries, keys, 0, T), -torch.inf).softmax(-1)
    return torch.stack(
        [(shares * visible_keys(queries, keys, sinks, span)).sum(-1) for span in spans]
    )
