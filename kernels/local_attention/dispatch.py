"""Choice of the implementation of local attention.

Shapes: B batch, H query heads, G key/value heads, Q queries, K keys, F blocks, d head size, R is B
or 1.
"""

from torch import Tensor

from layerwright.kernels.choice import chosen
from layerwright.kernels.local_attention.blockwise import local_attention_blockwise
from layerwright.kernels.local_attention.reference import (
    BlockMeans,
    SoftSpan,
    local_attention_reference,
)

IMPLEMENTATIONS = {
    "reference": local_attention_reference,
    "blockwise": local_attention_blockwise,
}


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
    """Causal attention to the sinks and the last `span` positions, and to means of what is between.

    o = (e^lw o_w + e^lf o_f) / (e^lw + e^lf): o_w and lw are the softmax and the log-sum-exp over
    the visible j, 0 <= j <= i and (j >= edge_i or j < sinks); o_f and lf the same over the blocks
    that end before edge_i, each of them one key with the score q_i · k̄_b / sqrt(d) + log count_b.
    edge_i = max(i - span + 1, 0), rounded down to a block's start where there are means.

    Args:
        q_BHQd: queries, already rotated.
        k_BGKd: keys, already rotated; head h of the queries reads head h // (H / G).
        v_BGKd: values.
        q_positions_RQ: absolute positions of the queries, int64, -1 where the slot is padding.
        k_positions_RK: absolute positions of the keys, the same; in any order.
            One row (R = 1) says that all rows stand at the same positions. Positions may lie on the
            CPU whatever the device of q: planning then costs no synchronisation.
        sinks: number of first positions that stay visible, >= 0.
        span: number of last positions that are visible, the query's own included, >= 1.
        means: of the blocks of keys; None leaves out what lies before the span.
        soft: lets each head's span end in a ramp (arXiv 1905.07799, eq. 5), with gradient to its
            length; `span` bounds it.
        return_lse: also return the two log-sum-exps.

    Returns:
        (B, H, Q, d) in the dtype of q; zero where a query sees nothing. With `return_lse` also lw
        and lf, (B, H, Q) in fp32 (fp64 for fp64 inputs), -inf where nothing is seen:
        sigmoid(lw - lf) is the share of attention that the visible keys are estimated to cover.

    Raises:
        ValueError: sinks, span, a block or a ramp out of range, heads that do not divide, or an
            unknown implementation in LAYERWRIGHT_KERNELS (`layerwright.kernels.choice`).
    """
    if sinks < 0 or span < 1:
        raise ValueError(f"sinks must be >= 0 and span >= 1, got sinks={sinks}, span={span}")
    if means is not None and means.size < 1:
        raise ValueError(f"blocks must hold at least 1 position, got {means.size}")
    if soft is not None and soft.ramp < 1:
        raise ValueError(f"the ramp must be at least 1 token, got {soft.ramp}")
    if q_BHQd.shape[1] % k_BGKd.shape[1]:
        raise ValueError(
            f"{q_BHQd.shape[1]} query heads are not a multiple of {k_BGKd.shape[1]} key heads"
        )
    run = chosen("local_attention", IMPLEMENTATIONS, q_BHQd, q_BHQd.shape[3])
    return run(
        *(q_BHQd, k_BGKd, v_BGKd, q_positions_RQ, k_positions_RK),
        *(sinks, span, means, soft, return_lse),
    )
