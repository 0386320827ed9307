"""Forward kernel of streaming attention: one program per block of queries of one head.

Shapes: B batch, H query heads, G key/value heads, Q queries, K keys, d head size, R is B or 1; in
the kernel BQ queries, BK keys, BD >= d channels.
"""

import torch
from torch import Tensor

from layerwright.kernels.launch import (
    MAX_TOKENS,
    dense_channels,
    padded_size,
    precision,
    product,
    tuned,
)
from layerwright.kernels.streaming_attention.plan import key_ranges

try:
    import triton
    import triton.language as tl
except ImportError as error:
    raise ImportError("the Triton kernels need the package triton") from error

LOG2_E = tl.constexpr(1.4426950408889634)  # the kernels use exp2 and log2
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _forward_kernel(
    p_q, p_k, p_v, p_i, p_j, p_ranges, p_out, p_lse,
    Q, K, H, G, d, sinks, window, scale,
    q_b, q_h, q_t, k_b, k_h, k_t, v_b, v_h, v_t, i_row, j_row, ranges_row,
    BQ: tl.constexpr, BK: tl.constexpr, BD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    i_block, i_bh = tl.program_id(0), tl.program_id(1)
    i_b, i_h = (i_bh // H).to(tl.int64), (i_bh % H).to(tl.int64)
    i_g = i_h // (H // G)
    o_q = i_block * BQ + tl.arange(0, BQ)
    o_d = tl.arange(0, BD)
    m_d = o_d < d
    b_i = tl.load(p_i + i_b * i_row + o_q, mask=o_q < Q, other=-1).to(tl.int32)  # [BQ]
    m_q = (b_i >= 0)[:, None] & m_d[None, :]
    p_q += i_b * q_b + i_h * q_h
    b_q = tl.load(p_q + o_q.to(tl.int64)[:, None] * q_t + o_d[None, :], mask=m_q, other=0.0)
    p_k += i_b * k_b + i_g * k_h
    p_v += i_b * v_b + i_g * v_h
    p_j += i_b * j_row

    p_ranges += i_b * ranges_row + i_block * 4
    sink_start, sink_stop = tl.load(p_ranges), tl.load(p_ranges + 1)
    start, stop = tl.load(p_ranges + 2), tl.load(p_ranges + 3)
    of_sinks = tl.maximum(sink_stop - sink_start, 0)
    b_out = tl.zeros([BQ, BD], tl.float32)
    b_max = tl.full([BQ], float("-inf"), tl.float32)
    b_sum = tl.zeros([BQ], tl.float32)
    for n in range(0, of_sinks + tl.maximum(stop - start, 0)):
        block = tl.where(n < of_sinks, sink_start + n, start + n - of_sinks)
        o_k = block * BK + tl.arange(0, BK)
        b_j = tl.load(p_j + o_k, mask=o_k < K, other=-1).to(tl.int32)  # [BK]
        m_k = (b_j >= 0)[:, None] & m_d[None, :]
        o_kd = o_k.to(tl.int64)[:, None]
        b_k = tl.load(p_k + o_kd * k_t + o_d[None, :], mask=m_k, other=0.0)
        b_v = tl.load(p_v + o_kd * v_t + o_d[None, :], mask=m_k, other=0.0)
        b_s = product(b_q, tl.trans(b_k), PRECISION) * scale  # [BQ, BK]
        x = b_i[:, None] - b_j[None, :]
        seen = (b_j[None, :] >= 0) & (x >= 0) & ((x < window) | (b_j[None, :] < sinks))
        b_s = tl.where(seen, b_s, float("-inf"))
        new_max = tl.maximum(b_max, tl.max(b_s, axis=1))
        # the maximum is -inf until a key is visible, and -inf - -inf is NaN
        shift = tl.where(new_max == float("-inf"), 0.0, new_max)
        b_p = tl.exp2(b_s - shift[:, None])
        kept = tl.exp2(b_max - shift)
        b_sum = b_sum * kept + tl.sum(b_p, axis=1)
        b_out = b_out * kept[:, None] + product(b_p.to(b_v.dtype), b_v, PRECISION)
        b_max = new_max
    b_out = b_out / tl.where(b_sum > 0, b_sum, 1.0)[:, None]
    b_lse = b_max + tl.log2(tl.where(b_sum > 0, b_sum, 1.0))
    o_row = i_bh.to(tl.int64) * Q + o_q
    tl.store(p_lse + o_row, b_lse * LN_2, mask=o_q < Q)
    p_out += o_row[:, None] * d + o_d[None, :]
    tl.store(p_out, b_out.to(p_out.dtype.element_ty), mask=(o_q < Q)[:, None] & m_d[None, :])


_FORWARD = tuned(_forward_kernel, ("d", "window", "BQ", "BK"))


def block_sizes(d: int, dtype: torch.dtype) -> tuple[int, int]:
    """Queries and keys per block that fit in shared memory at this head size."""
    row_bytes = padded_size(d) * dtype.itemsize
    return {1024: (32, 16), 512: (64, 32)}.get(row_bytes, (128, 64))


def attend(
    q_BHQd: Tensor,
    k_BGKd: Tensor,
    v_BGKd: Tensor,
    q_positions_RQ: Tensor,
    k_positions_RK: Tensor,
    sinks: int,
    window: int,
) -> tuple[Tensor, Tensor]:
    """Output (B, H, Q, d) and log-sum-exp (B, H, Q) in fp32."""
    B, H, Q, d = q_BHQd.shape
    G, K = k_BGKd.shape[1:3]
    out = torch.empty(B, H, Q, d, dtype=q_BHQd.dtype, device=q_BHQd.device)
    lse = torch.empty(B, H, Q, dtype=torch.float32, device=q_BHQd.device)
    BQ, BK = block_sizes(d, q_BHQd.dtype)
    ranges = key_ranges(q_positions_RQ, k_positions_RK, sinks, window, BQ, BK)
    q, k, v = dense_channels(q_BHQd), dense_channels(k_BGKd), dense_channels(v_BGKd)
    with torch.cuda.device_of(q):
        _FORWARD[(ranges.shape[1], B * H)](
            *(q, k, v, q_positions_RQ, k_positions_RK, ranges, out, lse),
            *(Q, K, H, G, d, sinks, min(window, MAX_TOKENS), d**-0.5 * LOG2_E.value),
            *(*q.stride()[:3], *k.stride()[:3], *v.stride()[:3]),
            *(row_stride(q_positions_RQ), row_stride(k_positions_RK), row_stride(ranges)),
            BQ=BQ,
            BK=BK,
            BD=padded_size(d),
            PRECISION=precision(q.dtype),
        )
    return out, lse


def row_stride(x: Tensor) -> int:
    """Stride from one row of the batch to the next; 0 if all rows share one."""
    return x.stride(0) if len(x) > 1 else 0
