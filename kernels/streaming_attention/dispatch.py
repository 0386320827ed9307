"""Choice of the implementation of streaming attention.

Shapes: B batch, H query heads, G key/value heads, Q queries, K keys, d head size, R is B or 1.
"""

from torch import Tensor

from layerwright.kernels.choice import chosen
from layerwright.kernels.streaming_attention.blockwise import streaming_attention_blockwise
from layerwright.kernels.streaming_attention.reference import streaming_attention_reference


def _fused(*arguments):
    from layerwright.kernels.streaming_attention.fused import streaming_attention_fused

    return streaming_attention_fused(*arguments)


IMPLEMENTATIONS = {
    "reference": streaming_attention_reference,
    "blockwise": streaming_attention_blockwise,
    "triton": _fused,
}


def streaming_attention(
    q_BHQd: Tensor,
    k_BGKd: Tensor,
    v_BGKd: Tensor,
    q_positions_RQ: Tensor,
    k_positions_RK: Tensor,
    sinks: int,
    window: int,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Causal attention to the first `sinks` and the last `window` positions (arXiv 2309.17453).

    o_i = sum_j p_ij v_j, p_i = softmax over the visible j of q_i · k_j / sqrt(d);
    visible(i, j) = 0 <= j <= i and (i - j < window or j < sinks), by absolute position.

    Args:
        q_BHQd: queries, already rotated.
        k_BGKd: keys, already rotated; head h of the queries reads head h // (H / G).
        v_BGKd: values.
        q_positions_RQ: absolute positions of the queries, int64, below 2**31 - 1, -1 where
            the slot is padding.
        k_positions_RK: absolute positions of the keys, the same; in any order.
            One row (R = 1) says that all rows stand at the same positions. Positions may lie on the
            CPU whatever the device of q: planning then costs no synchronisation.
        sinks: number of first positions that stay visible, >= 0.
        window: number of last positions that are visible, the query's own included, >= 1.
        return_lse: also return the log-sum-exp of the visible scores.

    Returns:
        (B, H, Q, d) in the dtype of q; zero where a query sees nothing. With `return_lse` also
        (B, H, Q) in fp32 (fp64 for fp64 inputs), -inf where a query sees nothing.

    Raises:
        ValueError: sinks or window out of range, heads that do not divide, or an implementation in
            LAYERWRIGHT_KERNELS that is unknown or cannot run here (`layerwright.kernels.choice`).
    """
    if sinks < 0 or window < 1:
        raise ValueError(f"sinks must be >= 0 and window >= 1, got sinks={sinks}, window={window}")
    if q_BHQd.shape[1] % k_BGKd.shape[1]:
        raise ValueError(
            f"{q_BHQd.shape[1]} query heads are not a multiple of {k_BGKd.shape[1]} key heads"
        )
    run = chosen("streaming_attention", IMPLEMENTATIONS, q_BHQd, q_BHQd.shape[3])
    return run(q_BHQd, k_BGKd, v_BGKd, q_positions_RQ, k_positions_RK, sinks, window, return_lse)
