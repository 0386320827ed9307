"""Covered mass in Triton: all spans in one pass over the keys, which are split over programs.

Shapes: B batch, H query heads, G key/value heads, r = H / G, Q queries, K keys, n spans, d head
size, R is B or 1; in the kernel BR of the r Q rows, BK keys, BN >= n spans, BD >= d channels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from layerwright.kernels.launch import (
    LOG2_E,
    MAX_TOKENS,
    dense_channels,
    padded_size,
    precision,
    product,
    row_stride,
    tl,
    triton,
)
from layerwright.kernels.streaming_attention.triton_decode import split_count
from layerwright.kernels.streaming_attention.triton_forward import block_sizes

ROWS = 32


@triton.jit
def _mass_kernel(
    p_q, p_k, p_i, p_j, p_spans, p_max, p_sums,
    Q, K, H, G, d, n, sinks, scale, blocks_each,
    q_b, q_h, q_t, k_b, k_h, k_t, i_row, j_row,
    BR: tl.constexpr, BK: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Per split: the highest score m, and for each span the sum of exp2(score - m)."""
    i_split, i_rows, i_bg = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    splits = tl.num_programs(0)
    i_b, i_g = (i_bg // G).to(tl.int64), (i_bg % G).to(tl.int64)
    r = H // G
    o_r, o_d, o_n = i_rows * BR + tl.arange(0, BR), tl.arange(0, BD), tl.arange(0, BN)
    m_r, m_d = o_r < r * Q, o_d < d
    i_h, i_q = i_g * r + o_r // Q, o_r % Q
    b_i = tl.load(p_i + i_b * i_row + i_q, mask=m_r, other=-1).to(tl.int32)  # [BR]
    p_q += i_b * q_b + (i_h * q_h + i_q * q_t)[:, None] + o_d[None, :]
    b_q = tl.load(p_q, mask=(b_i >= 0)[:, None] & m_d[None, :], other=0.0)
    p_k += i_b * k_b + i_g * k_h
    p_j += i_b * j_row

    b_max = tl.full([BR], float("-inf"), tl.float32)
    b_sums = tl.zeros([BR, BN], tl.float32)
    last = tl.minimum((i_split + 1) * blocks_each, tl.cdiv(K, BK))
    for block in range(i_split * blocks_each, last):
        o_k = block * BK + tl.arange(0, BK)
        b_j = tl.load(p_j + o_k, mask=o_k < K, other=-1).to(tl.int32)  # [BK]
        m_k = (b_j >= 0)[:, None] & m_d[None, :]
        b_k = tl.load(p_k + o_k.to(tl.int64)[:, None] * k_t + o_d[None, :], mask=m_k, other=0.0)
        b_s = product(b_q, tl.trans(b_k), PRECISION) * scale  # [BR, BK]
        x = b_i[:, None] - b_j[None, :]
        b_s = tl.where((b_j[None, :] >= 0) & (x >= 0), b_s, float("-inf"))
        new_max = tl.maximum(b_max, tl.max(b_s, axis=1))
        shift = tl.where(new_max == float("-inf"), 0.0, new_max)
        b_p = tl.exp2(b_s - shift[:, None])
        kept = tl.exp2(b_max - shift)
        b_sums *= kept[:, None]
        for i_n in range(n):
            span = tl.load(p_spans + i_n)
            visible = (x < span) | (b_j[None, :] < sinks)
            b_sum = tl.sum(tl.where(visible, b_p, 0.0), axis=1)
            b_sums += tl.where(o_n[None, :] == i_n, b_sum[:, None], 0.0)
        b_max = new_max
    o_row = (i_b * H + i_h) * Q + i_q
    tl.store(p_max + o_row * splits + i_split, b_max, mask=m_r)
    m_n = m_r[:, None] & (o_n < n)[None, :]
    p_sums += (o_row[:, None] * n + o_n[None, :]) * splits + i_split
    tl.store(p_sums, b_sums, mask=m_n)


def covered_mass_fused(
    q_BHQd: Tensor,
    k_BGKd: Tensor,
    spans: Sequence[int],
    sinks: int,
    q_positions_RQ: Tensor,
    k_positions_RK: Tensor,
) -> Tensor:
    """Reads the keys once and stores no score. Args as in `covered_mass`, positions required."""
    (B, H, Q, d), (G, K) = q_BHQd.shape, k_BGKd.shape[1:3]
    q, k, device = dense_channels(q_BHQd), dense_channels(k_BGKd), q_BHQd.device
    i, j = (x.to(device).contiguous() for x in (q_positions_RQ, k_positions_RK))
    # One more span covers all keys. It is summed in the same order, so a full share is exactly 1.
    limited = [min(span, MAX_TOKENS) for span in (*spans, MAX_TOKENS)]
    with_all = torch.tensor(limited, dtype=torch.int32).to(device, non_blocking=True)
    n, row_blocks = len(with_all), triton.cdiv(H // G * Q, ROWS)
    BK = block_sizes(d, q.dtype)[1]
    blocks = triton.cdiv(K, BK)
    splits = split_count(B * row_blocks, G, blocks)
    top = torch.empty(B, H, Q, splits, dtype=torch.float32, device=device)
    sums = torch.empty(B, H, Q, n, splits, dtype=torch.float32, device=device)
    with torch.cuda.device_of(q):
        _mass_kernel[(splits, row_blocks, B * G)](
            *(q, k, i, j, with_all, top, sums),
            *(Q, K, H, G, d, n, sinks, d**-0.5 * LOG2_E.value, triton.cdiv(blocks, splits)),
            *(*q.stride()[:3], *k.stride()[:3], row_stride(i), row_stride(j)),
            *(ROWS, BK, triton.next_power_of_2(n), padded_size(d), precision(q.dtype)),
        )
    # a split without visible keys has the maximum -inf and the weight exp2(-inf) = 0
    weight = torch.exp2(top - top.amax(-1, keepdim=True).clamp_min(-1e30))
    sums = (sums * weight[..., None, :]).sum(-1)
    share = sums[..., :-1] / sums[..., -1:]
    return share.permute(3, 0, 1, 2).masked_fill(i[:, None] < 0, 0)
