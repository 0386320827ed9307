"""Choice of the implementation of covered mass.

Shapes: B batch, H query heads, G key/value heads, Q queries, K keys, n spans, d head size, R is B
or 1.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from layerwright.kernels.choice import chosen
from layerwright.kernels.covered_mass.reference import covered_mass_reference


def _fused(*arguments):
    from layerwright.kernels.covered_mass.fused import covered_mass_fused

    return covered_mass_fused(*arguments)


IMPLEMENTATIONS = {
    "reference": covered_mass_reference,
    "blockwise": covered_mass_reference,  # few queries: their scores are one block
    "triton": _fused,
}


def covered_mass(
    q_BHQd: Tensor,
    k_BGKd: Tensor,
    spans: Sequence[int],
    sinks: int,
    q_positions_RQ: Tensor | None = None,
    k_positions_RK: Tensor | None = None,
) -> Tensor:
    """Attention mass of each query on the sinks and each span (arXiv 2410.13846, section 3.2).

    sum over visible j of A(i, j), A being the softmax over all 0 <= j <= i, and visible where
    i - j < span or j < sinks. Its mean over heads and a prompt's last queries is the lazy ratio.
    Meant for few queries; gives no gradients.

    Args:
        q_BHQd: rotated queries; H / G heads share a key head.
        k_BGKd: rotated keys.
        spans: numbers of last positions, the query's own included, each >= 1.
        sinks: number of first positions that are always visible.
        q_positions_RQ, k_positions_RK: absolute positions, int64, -1 for padding, whose slots are
            never read; by default the keys stand at 0 .. K - 1 and the queries at the last Q.

    Returns:
        (n, B, H, Q) in fp32 (fp64 for fp64 inputs); 0 for a query that is padding. Exactly 1 where
        nothing lies outside sinks and span.

    Raises:
        ValueError: an implementation in LAYERWRIGHT_KERNELS that is unknown or cannot run here.
    """
    if k_positions_RK is None:
        k_positions_RK = torch.arange(k_BGKd.shape[2], device=q_BHQd.device)[None]
        q_positions_RQ = k_positions_RK[:, k_BGKd.shape[2] - q_BHQd.shape[2] :]
    run = chosen("covered_mass", IMPLEMENTATIONS, q_BHQd, q_BHQd.shape[3])
    with torch.no_grad():
        return run(q_BHQd, k_BGKd, spans, sinks, q_positions_RQ, k_positions_RK)
