"""Decode kernels of streaming attention: one query per row, with the keys split over programs.

The query heads of one key head are the rows of one product, so keys are read once, in any order
(such as a ring's), and only those that the query can see.
Shapes: B batch, H query heads, G key/value heads, r = H / G, K keys, N splits, d head size, R is B
or 1; in the kernels BR >= r rows, BK keys, BN >= N splits, BD >= d channels.
"""

import torch
from torch import Tensor

from layerwright.kernels.launch import (
    LN_2,
    LOG2_E,
    MULTIPROCESSORS,
    SMALLEST_DOT,
    padded_size,
    precision,
    product,
    row_stride,
    softmax_step,
    tl,
    triton,
)
from layerwright.kernels.streaming_attention.reference import Mask
from layerwright.kernels.streaming_attention.triton_forward import add_sink, block_sizes


@triton.jit
def _decode_kernel(
    p_q, p_k, p_v, p_i, p_j, p_sink, p_out, p_lse,
    K, H, G, d, sinks, window, scale, blocks_each,
    q_b, q_h, k_b, k_h, k_t, v_b, v_h, v_t, i_row, j_row,
    BR: tl.constexpr, BK: tl.constexpr, BD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    i_split, i_bg = tl.program_id(0), tl.program_id(1)
    splits = tl.num_programs(0)
    i_b, i_g = (i_bg // G).to(tl.int64), (i_bg % G).to(tl.int64)
    r = H // G
    o_r, o_d = tl.arange(0, BR), tl.arange(0, BD)
    m_d = o_d < d
    m_q = (o_r < r)[:, None] & m_d[None, :]
    i = tl.load(p_i + i_b * i_row).to(tl.int32)
    i_h = i_g * r + o_r
    p_q += i_b * q_b
    b_q = tl.load(p_q + i_h[:, None] * q_h + o_d[None, :], mask=m_q, other=0.0)
    p_k += i_b * k_b + i_g * k_h
    p_v += i_b * v_b + i_g * v_h
    p_j += i_b * j_row

    b_out = tl.zeros([BR, BD], tl.float32)
    b_max = tl.full([BR], float("-inf"), tl.float32)
    b_sum = tl.zeros([BR], tl.float32)
    last = tl.minimum((i_split + 1) * blocks_each, tl.cdiv(K, BK))
    for block in range(i_split * blocks_each, last):
        o_k = block * BK + tl.arange(0, BK)
        b_j = tl.load(p_j + o_k, mask=o_k < K, other=-1).to(tl.int32)  # [BK]
        x = i - b_j
        seen = (b_j >= 0) & (x >= 0) & ((x < window) | (b_j < sinks))
        m_k = seen[:, None] & m_d[None, :]
        o_kd = o_k.to(tl.int64)[:, None]
        b_k = tl.load(p_k + o_kd * k_t + o_d[None, :], mask=m_k, other=0.0)
        b_v = tl.load(p_v + o_kd * v_t + o_d[None, :], mask=m_k, other=0.0)
        b_s = product(b_q, tl.trans(b_k), PRECISION) * scale  # [BR, BK]
        b_s = tl.where(seen[None, :], b_s, float("-inf"))
        b_out, b_max, b_sum = softmax_step(b_s, b_v, b_out, b_max, b_sum, PRECISION)
    if p_sink is not None:
        b_sink = tl.load(p_sink + i_h, mask=o_r < r, other=0.0) * LOG2_E
        b_out, b_max, b_sum = add_sink(b_out, b_max, b_sum, b_sink)
    b_sum = tl.where(b_sum > 0, b_sum, 1.0)
    o_row = (i_b * H + i_h) * splits + i_split
    tl.store(p_lse + o_row, (b_max + tl.log2(b_sum)) * LN_2, mask=o_r < r)
    b_out = (b_out / b_sum[:, None]).to(p_out.dtype.element_ty)
    tl.store(p_out + o_row[:, None] * d + o_d[None, :], b_out, mask=m_q)


@triton.jit
def _combine_kernel(
    p_parts, p_part_lse, p_sink, p_out, p_lse, splits, H, d, BN: tl.constexpr, BD: tl.constexpr
):
    """Merges the splits: o = sum over n of exp(lse_n - lse) o_n, lse = log sum exp(lse_n).

    The sink logit is one more term of the sum, unless no split has a visible key.
    """
    i_bh = tl.program_id(0).to(tl.int64)
    o_n, o_d = tl.arange(0, BN), tl.arange(0, BD)
    p_part_lse += i_bh * splits
    b_lse = tl.load(p_part_lse + o_n, mask=o_n < splits, other=float("-inf"))  # [BN]
    top = tl.max(b_lse, axis=0)
    b_w = tl.exp(b_lse - tl.where(top == float("-inf"), 0.0, top))
    total = tl.sum(b_w, axis=0)
    if p_sink is not None:
        sink = tl.load(p_sink + i_bh % H)
        raised = tl.where(total > 0, tl.maximum(top, sink), top)
        kept = tl.where(total > 0, tl.exp(top - raised), 1.0)
        b_w *= kept
        total = total * kept + tl.where(total > 0, tl.exp(sink - raised), 0.0)
        top = raised
    total = tl.where(total > 0, total, 1.0)
    p_parts += i_bh * splits * d + o_n[:, None] * d + o_d[None, :]
    b_parts = tl.load(p_parts, mask=(o_n < splits)[:, None] & (o_d < d)[None, :], other=0.0)
    b_out = tl.sum(b_parts * b_w[:, None], axis=0) / total
    tl.store(p_lse + i_bh, top + tl.log(total))
    tl.store(p_out + i_bh * d + o_d, b_out.to(p_out.dtype.element_ty), mask=o_d < d)


def split_count(batch: int, groups: int, blocks: int) -> int:
    """Number of splits of the keys: two programs per multiprocessor, and no empty split."""
    target = triton.cdiv(2 * MULTIPROCESSORS, batch * groups)
    blocks_each = triton.cdiv(max(blocks, 1), min(max(blocks, 1), target))
    return max(triton.cdiv(blocks, blocks_each), 1)


def attend_once(
    q_BH1d: Tensor,
    k_BGKd: Tensor,
    v_BGKd: Tensor,
    *mask: *Mask,
    sink_logits_H: Tensor | None = None,
    splits: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Output (B, H, 1, d) and log-sum-exp (B, H, 1) in fp32 of one query per row.

    Args:
        splits: programs that share the keys of a head; by default enough to fill the GPU.
    """
    (B, H, _, d), (G, K) = q_BH1d.shape, k_BGKd.shape[1:3]
    i, j, sinks, window = mask
    BK, BD = block_sizes(d, q_BH1d.dtype)[1], padded_size(d)
    blocks = triton.cdiv(K, BK)
    splits = splits or split_count(B, G, blocks)
    parts = out = torch.empty(B, H, 1, d, dtype=q_BH1d.dtype, device=q_BH1d.device)
    part_lse = lse = torch.empty(B, H, 1, dtype=torch.float32, device=q_BH1d.device)
    if splits > 1:
        parts, part_lse = lse.new_empty(B, H, splits, d), lse.new_empty(B, H, splits)
    with torch.cuda.device_of(q_BH1d):
        _decode_kernel[(splits, B * G)](
            *(q_BH1d, k_BGKd, v_BGKd, i, j, sink_logits_H if splits == 1 else None),
            *(parts, part_lse, K, H, G, d, sinks, window),
            *(d**-0.5 * LOG2_E.value, triton.cdiv(blocks, splits)),
            *(*q_BH1d.stride()[:2], *k_BGKd.stride()[:3], *v_BGKd.stride()[:3]),
            *(row_stride(i), row_stride(j), max(triton.next_power_of_2(H // G), SMALLEST_DOT)),
            *(BK, BD, precision(q_BH1d.dtype)),
        )
        if splits > 1:
            _combine_kernel[(B * H,)](
                *(parts, part_lse, sink_logits_H, out, lse),
                *(splits, H, d, triton.next_power_of_2(splits), BD),
            )
    return out, lse
