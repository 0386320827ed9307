"""Streaming attention: checks the arguments, chooses an implementation and runs it.

Shapes: B batch, H query heads, G key/value heads, Q queries, K keys, d head size, R is B or 1.
"""

from typing import Any

from torch import Tensor

from layerwright.kernels.choice import choose_implementation
from layerwright.kernels.streaming_attention.blockwise import streaming_attention_blockwise
from layerwright.kernels.streaming_attention.reference import streaming_attention_reference


def _fused(*arguments: Any, **options: Any) -> Any:
    from layerwright.kernels.streaming_attention.fused import streaming_attention_fused

    return streaming_attention_fused(*arguments, **options)


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
    sink_logits_H: Tensor | None = None,
) -> Any:
    """Causal attention to the first `sinks` and the last `window` positions (arXiv 2309.17453).

    o_i = sum_j p_ij v_j, where p_i is the softmax over the visible j of q_i · k_j / sqrt(d), and
    visible(i, j) = 0 <= j <= i and (i - j < window or j < sinks), by absolute position. With sink
    logits a, one more term exp(a_h) is in the softmax's denominator, for a key whose value is zero:
    p_ij = exp(s_ij - logaddexp(lse_i, a_h)).

    Args:
        q_BHQd: rotated queries.
        k_BGKd: rotated keys; query head h reads key head h // (H / G).
        v_BGKd: values.
        q_positions_RQ: absolute positions of the queries, int64, below 2**31 - 1, -1 for padding.
        k_positions_RK: absolute positions of the keys, in the same form and in any order. One row
            (R = 1) holds for all rows of the batch. Positions may be on the CPU whatever the device
            of q; planning then needs no synchronisation with the device.
        sinks: number of first positions that stay visible, >= 0.
        window: number of last positions that are visible, the query's own included, >= 1.
        return_lse: also return the log-sum-exp of the visible scores and the sink logit.
        sink_logits_H: a learned logit per query head, as in gpt-oss (arXiv 2508.10925) and
            GraniteSWA; None for no such term.

    Returns:
        (B, H, Q, d) in the dtype of q; zero for a query that sees nothing. With `return_lse` also
        the log-sum-exp (B, H, Q) in fp32 (fp64 for fp64 inputs), -inf for a query that sees
        nothing.

    Raises:
        ValueError: sinks or window is out of range, H is not a multiple of G, or
            LAYERWRIGHT_KERNELS is invalid (`layerwright.kernels.choice`).
    """
    if sinks < 0 or window < 1:
        raise ValueError(f"sinks must be >= 0 and window >= 1, got sinks={sinks}, window={window}")
    if q_BHQd.shape[1] % k_BGKd.shape[1]:
        raise ValueError(
            f"{q_BHQd.shape[1]} query heads are not a multiple of {k_BGKd.shape[1]} key/value heads"
        )
    run = choose_implementation("streaming_attention", IMPLEMENTATIONS, q_BHQd, q_BHQd.shape[3])
    mask = q_positions_RQ, k_positions_RK, sinks, window
    options = {"return_lse": return_lse, "sink_logits_H": sink_logits_H}
    return run(q_BHQd, k_BGKd, v_BGKd, *mask, **options)
