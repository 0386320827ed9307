"""Backward kernels of streaming attention: one for queries, one for keys and values.

With p = exp(s - lse), dp = do vᵀ, the gradient do of the output and dl of the log-sum-exp:
    dv = pᵀ do      ds = p (dp - delta), delta = sum(do o) - dl      dq = ds k      dk = dsᵀ q
dq and dk are also multiplied by the scale. Blocks outside the mask are not read.
Shapes: B batch, H query heads, G key/value heads, Q queries, K keys, d head size, R is B or 1; in
the kernels BQ queries, BK keys, BD >= d channels.
"""

import torch
from torch import Tensor

from layerwright.kernels.launch import (
    LOG2_E,
    padded_size,
    precision,
    product,
    row_stride,
    tl,
    triton,
    tuned,
)
from layerwright.kernels.streaming_attention.reference import Mask
from layerwright.kernels.streaming_attention.triton_forward import (
    block_sizes,
    key_ranges,
    query_ranges,
)

Pair = tuple[Tensor, Tensor]
MAX_QUERIES = 64  # a program holds four products; 128 queries would exceed the registers


@triton.jit
def _probability(b_q, b_k, b_i, b_j, b_lse, sinks, window, scale, PRECISION: tl.constexpr):
    """p [BQ, BK] from queries, keys, positions and the log-sum-exp in base 2."""
    b_s = product(b_q, tl.trans(b_k), PRECISION) * scale
    x = b_i[:, None] - b_j[None, :]
    seen = (b_j[None, :] >= 0) & (x >= 0) & ((x < window) | (b_j[None, :] < sinks))
    # for a query that sees nothing lse = -inf and exp2 gives inf, but `seen` is false everywhere
    return tl.where(seen, tl.exp2(b_s - b_lse[:, None]), 0.0)


@triton.jit
def _query_kernel(
    p_q, p_k, p_v, p_i, p_j, p_ranges, p_do, p_lse, p_delta, p_dq,
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
    o_row = i_bh.to(tl.int64) * Q + o_q
    o_out = o_row[:, None] * d + o_d[None, :]
    b_do = tl.load(p_do + o_out, mask=m_q, other=0.0)
    b_lse = tl.load(p_lse + o_row, mask=o_q < Q, other=0.0) * LOG2_E
    b_delta = tl.load(p_delta + o_row, mask=o_q < Q, other=0.0)
    p_k += i_b * k_b + i_g * k_h
    p_v += i_b * v_b + i_g * v_h
    p_j += i_b * j_row

    p_ranges += i_b * ranges_row + i_block * 4
    sink_start, sink_stop = tl.load(p_ranges), tl.load(p_ranges + 1)
    start, stop = tl.load(p_ranges + 2), tl.load(p_ranges + 3)
    of_sinks = tl.maximum(sink_stop - sink_start, 0)
    b_dq = tl.zeros([BQ, BD], tl.float32)
    for n in range(0, of_sinks + tl.maximum(stop - start, 0)):
        block = tl.where(n < of_sinks, sink_start + n, start + n - of_sinks)
        o_k = block * BK + tl.arange(0, BK)
        b_j = tl.load(p_j + o_k, mask=o_k < K, other=-1).to(tl.int32)  # [BK]
        m_k = (b_j >= 0)[:, None] & m_d[None, :]
        o_kd = o_k.to(tl.int64)[:, None]
        b_k = tl.load(p_k + o_kd * k_t + o_d[None, :], mask=m_k, other=0.0)
        b_v = tl.load(p_v + o_kd * v_t + o_d[None, :], mask=m_k, other=0.0)
        b_p = _probability(b_q, b_k, b_i, b_j, b_lse, sinks, window, scale * LOG2_E, PRECISION)
        b_dp = product(b_do, tl.trans(b_v), PRECISION)
        b_ds = b_p * (b_dp - b_delta[:, None])
        b_dq += product(b_ds.to(b_k.dtype), b_k, PRECISION)
    b_dq = (b_dq * scale).to(p_dq.dtype.element_ty)
    tl.store(p_dq + o_out, b_dq, mask=(o_q < Q)[:, None] & m_d[None, :])


@triton.jit
def _key_kernel(
    p_q, p_k, p_v, p_i, p_j, p_ranges, p_do, p_lse, p_delta, p_dk, p_dv,
    Q, K, H, G, d, sinks, window, scale,
    q_b, q_h, q_t, k_b, k_h, k_t, v_b, v_h, v_t, i_row, j_row, ranges_row,
    BQ: tl.constexpr, BK: tl.constexpr, BD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    i_block, i_bh = tl.program_id(0), tl.program_id(1)
    i_b, i_h = (i_bh // H).to(tl.int64), (i_bh % H).to(tl.int64)
    i_g = i_h // (H // G)
    o_k = i_block * BK + tl.arange(0, BK)
    o_d = tl.arange(0, BD)
    m_d = o_d < d
    b_j = tl.load(p_j + i_b * j_row + o_k, mask=o_k < K, other=-1).to(tl.int32)  # [BK]
    m_k = (b_j >= 0)[:, None] & m_d[None, :]
    o_kd = o_k.to(tl.int64)[:, None]
    p_k += i_b * k_b + i_g * k_h
    p_v += i_b * v_b + i_g * v_h
    b_k = tl.load(p_k + o_kd * k_t + o_d[None, :], mask=m_k, other=0.0)
    b_v = tl.load(p_v + o_kd * v_t + o_d[None, :], mask=m_k, other=0.0)
    p_q += i_b * q_b + i_h * q_h
    p_i += i_b * i_row

    p_ranges += i_b * ranges_row + i_block * 2
    b_dk = tl.zeros([BK, BD], tl.float32)
    b_dv = tl.zeros([BK, BD], tl.float32)
    for block in range(tl.load(p_ranges), tl.load(p_ranges + 1)):
        o_q = block * BQ + tl.arange(0, BQ)
        b_i = tl.load(p_i + o_q, mask=o_q < Q, other=-1).to(tl.int32)  # [BQ]
        m_q = (b_i >= 0)[:, None] & m_d[None, :]
        b_q = tl.load(p_q + o_q.to(tl.int64)[:, None] * q_t + o_d[None, :], mask=m_q, other=0.0)
        o_row = i_bh.to(tl.int64) * Q + o_q
        b_do = tl.load(p_do + o_row[:, None] * d + o_d[None, :], mask=m_q, other=0.0)
        b_lse = tl.load(p_lse + o_row, mask=o_q < Q, other=0.0) * LOG2_E
        b_delta = tl.load(p_delta + o_row, mask=o_q < Q, other=0.0)
        b_p = _probability(b_q, b_k, b_i, b_j, b_lse, sinks, window, scale * LOG2_E, PRECISION)
        b_dv += product(tl.trans(b_p).to(b_do.dtype), b_do, PRECISION)
        b_dp = product(b_do, tl.trans(b_v), PRECISION)
        b_ds = b_p * (b_dp - b_delta[:, None])
        b_dk += product(tl.trans(b_ds).to(b_q.dtype), b_q, PRECISION)
    o_out = (i_bh.to(tl.int64) * K + o_k)[:, None] * d + o_d[None, :]
    m_out = (o_k < K)[:, None] & m_d[None, :]
    tl.store(p_dk + o_out, b_dk * scale, mask=m_out)
    tl.store(p_dv + o_out, b_dv, mask=m_out)


_QUERIES = tuned(_query_kernel, ("d", "window", "BQ", "BK"))
_KEYS = tuned(_key_kernel, ("d", "window", "BQ", "BK"))


def row_delta(results: Pair, d_results: Pair) -> Tensor:
    """delta (B, H, Q) in fp32; 0 for a query that sees nothing, whose log-sum-exp is constant."""
    (out, lse), (d_out, d_lse) = results, d_results
    delta = (d_out.float() * out.float()).sum(-1) - d_lse.float()
    return delta.masked_fill(lse.isneginf(), 0)


def gradients(
    inputs: tuple[Tensor, ...], mask: Mask, results: Pair, d_results: Pair
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values from those of the output and the log-sum-exp."""
    (q, k, v), (i, j, sinks, window) = inputs, mask
    lse, d_out = results[1], d_results[0]
    (B, H, Q, d), (G, K) = q.shape, k.shape[1:3]
    delta = row_delta(results, d_results).contiguous()
    d_out, lse = d_out.contiguous(), lse.contiguous()
    BQ, BK = block_sizes(d, q.dtype)
    BQ = min(BQ, MAX_QUERIES)
    by_query, by_key = key_ranges(mask, BQ, BK), query_ranges(mask, BQ, BK)
    dq = torch.empty(B, H, Q, d, dtype=q.dtype, device=q.device)
    dk, dv = torch.empty(2, B, H, K, d, dtype=torch.float32, device=q.device)
    for kernel, ranges, outputs in ((_QUERIES, by_query, (dq,)), (_KEYS, by_key, (dk, dv))):
        with torch.cuda.device_of(q):
            kernel[(ranges.shape[1], B * H)](
                *(q, k, v, i, j, ranges, d_out, lse, delta, *outputs),
                *(Q, K, H, G, d, sinks, window, d**-0.5),
                *(*q.stride()[:3], *k.stride()[:3], *v.stride()[:3]),
                *(row_stride(i), row_stride(j), row_stride(ranges)),
                *(BQ, BK, padded_size(d), precision(q.dtype)),
            )
    by_group = (x.unflatten(1, (G, H // G)).sum(2).to(k.dtype) for x in (dk, dv))
    return dq, *by_group
