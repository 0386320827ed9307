"""Covered mass: chooses an implementation and runs it.

Shapes: B batch, H query heads, G key/value heads, Q queries, K keys, n spans, d head size, R is B
or 1.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from layerwright.kernels.choice import choose_implementation
from layerwright.kernels.covered_mass.reference import covered_mass_reference


def _fused(*arguments: Any) -> Tensor:
    from layerwright.kernels.covered_mass.fused import covered_mass_fused

    return covered_mass_fused(*arguments)


IMPLEMENTATIONS = {
    "reference": covered_mass_reference,
    "blockwise": covered_mass_reference,  # few queries, so all scores fit in memory
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
    """Share of each query's attention on the sinks and each span (arXiv 2410.13846, section 3.2).

    The share is the sum over visible j of A(i, j), where A is the softmax over all 0 <= j <= i, and
    j is visible if i - j < span or j < sinks. Its mean over heads and a prompt's last queries is
    the lazy ratio. For few queries; without gradients.

    Args:
        q_BHQd: rotated queries; H / G heads share a key head.
        k_BGKd: rotated keys.
        spans: numbers of last positions, the query's own included, each >= 1.
        sinks: number of first positions that are always visible.
        q_positions_RQ, k_positions_RK: absolute positions, int64, -1 for padding, which is never
            read. By default the keys have positions 0 .. K - 1 and the queries the last Q of them.

    Returns:
        (n, B, H, Q) in fp32 (fp64 for fp64 inputs); 0 for a padding query, exactly 1 if no key is
        outside sinks and span.

    Raises:
        ValueError: LAYERWRIGHT_KERNELS is invalid (`layerwright.kernels.choice`).
    """
    if q_positions_RQ is None or k_positions_RK is None:
        k_positions_RK = torch.arange(k_BGKd.shape[2], device=q_BHQd.device)[None]
        q_positions_RQ = k_positions_RK[:, k_BGKd.shape[2] - q_BHQd.shape[2] :]
    run = choose_implementation("covered_mass", IMPLEMENTATIONS, q_BHQd, q_BHQd.shape[3])
    with torch.no_grad():
        return run(q_BHQd, k_BGKd, spans, sinks, q_positions_RQ, k_positions_RK)
