"""Local attention: checks the arguments, chooses an implementation and runs it.

Shapes: B batch, H query heads, G key/value heads, Q queries, K keys, F blocks, d head size, R is B
or 1.
"""

from torch import Tensor

from layerwright.kernels.choice import choose_implementation
from layerwright.kernels.local_attention.blockwise import local_attention_blockwise
from layerwright.kernels.local_attention.reference import (
    BlockMeans,
    SoftSpan,
    local_attention_reference,
)

IMPLEMENTATIONS = {"reference": local_attention_reference, "blockwise": local_attention_blockwise}


def local_attention(
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
) -> Tensor | tuple[Tensor, Tensor, Tensor]:
    """Causal attention to sinks and a sliding window, plus means of the blocks in between.

    o = (e^lw o_w + e^lf o_f) / (e^lw + e^lf). o_w and lw are the softmax output and the log-sum-exp
    over the exact keys j: 0 <= j <= i and (j >= edge_i or j < sinks). o_f and lf are the same over
    the blocks that end before edge_i; each block is one key with the score q_i · k̄_b / sqrt(d) +
    log count_b. edge_i = max(i - span + 1, 0), rounded down to the start of a block if there are
    means.

    Args:
        q_BHQd: rotated queries.
        k_BGKd: rotated keys; query head h reads key head h // (H / G).
        v_BGKd: values.
        q_positions_RQ: absolute positions of the queries, int64, -1 for padding.
        k_positions_RK: absolute positions of the keys, in the same form and in any order. One row
            (R = 1) holds for all rows of the batch. Positions may be on the CPU whatever the device
            of q; planning then needs no synchronisation with the device.
        sinks: number of first positions that stay visible, >= 0.
        span: number of last positions that are visible, the query's own included, >= 1.
        means: means of the blocks of keys; None to ignore everything before the span.
        soft: ends each head's span in a ramp (arXiv 1905.07799, eq. 5) whose length gets a
            gradient; `span` is its upper bound.
        return_lse: also return the two log-sum-exps.

    Returns:
        (B, H, Q, d) in the dtype of q; zero for a query that sees nothing. With `return_lse` also
        lw and lf, (B, H, Q) in fp32 (fp64 for fp64 inputs), -inf where nothing is visible.
        sigmoid(lw - lf) estimates the share of attention that the exact keys cover.

    Raises:
        ValueError: sinks, span, block size or ramp is out of range, H is not a multiple of G, or
            LAYERWRIGHT_KERNELS is invalid (`layerwright.kernels.choice`).
    """
    if sinks < 0 or span < 1:
        raise ValueError(f"sinks must be >= 0 and span >= 1, got sinks={sinks}, span={span}")
    if means is not None and means.size < 1:
        raise ValueError(f"the block size must be at least 1 position, got {means.size}")
    if soft is not None and soft.ramp < 1:
        raise ValueError(f"the ramp must be at least 1 token, got {soft.ramp}")
    if q_BHQd.shape[1] % k_BGKd.shape[1]:
        raise ValueError(
            f"{q_BHQd.shape[1]} query heads are not a multiple of {k_BGKd.shape[1]} key/value heads"
        )
    run = choose_implementation("local_attention", IMPLEMENTATIONS, q_BHQd, q_BHQd.shape[3])
    mask = q_positions_RQ, k_positions_RK, sinks, span
    return run(q_BHQd, k_BGKd, v_BGKd, *mask, means, soft, return_lse)
