"""Forward kernel of streaming attention, and the ranges of blocks that can see each other.

A program has one block of queries of one head. The ranges are tensor operations, so the host never
waits for the device.
Shapes: B batch, H query heads, G key/value heads, Q queries, K keys, N blocks, d head size, R is B
or 1; in the kernel BQ queries, BK keys, BD >= d channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from layerwright.kernels.launch import (
    LN_2,
    LOG2_E,
    padded_size,
    precision,
    product,
    row_stride,
    softmax_step,
    tl,
    triton,
    tuned,
)
from layerwright.kernels.streaming_attention.reference import NEVER, Mask


@triton.jit
def add_sink(b_out, b_max, b_sum, b_sink):
    """Adds the sink's term to a softmax in base 2; a row without a visible key stays as it is."""
    sees = b_sum > 0
    top = tl.where(sees, tl.maximum(b_max, b_sink), 0.0)
    kept = tl.where(sees, tl.exp2(b_max - top), 0.0)
    b_sum = b_sum * kept + tl.where(sees, tl.exp2(b_sink - top), 0.0)
    return b_out * kept[:, None], tl.where(sees, top, b_max), b_sum


@triton.jit
def _forward_kernel(
    p_q, p_k, p_v, p_i, p_j, p_ranges, p_sink, p_out, p_lse,
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
        b_out, b_max, b_sum = softmax_step(b_s, b_v, b_out, b_max, b_sum, PRECISION)
    if p_sink is not None:
        b_sink = tl.load(p_sink + i_h) * LOG2_E
        b_out, b_max, b_sum = add_sink(b_out, b_max, b_sum, b_sink)
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
    *mask: *Mask,
    sink_logits_H: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Output (B, H, Q, d) and log-sum-exp (B, H, Q) in fp32."""
    (B, H, Q, d), (G, K) = q_BHQd.shape, k_BGKd.shape[1:3]
    i, j, sinks, window = mask
    out = torch.empty(B, H, Q, d, dtype=q_BHQd.dtype, device=q_BHQd.device)
    lse = torch.empty(B, H, Q, dtype=torch.float32, device=q_BHQd.device)
    sizes = block_sizes(d, q_BHQd.dtype)
    ranges = key_ranges(mask, *sizes)
    with torch.cuda.device_of(q_BHQd):
        _FORWARD[(ranges.shape[1], B * H)](
            *(q_BHQd, k_BGKd, v_BGKd, i, j, ranges, sink_logits_H, out, lse),
            *(Q, K, H, G, d, sinks, window, d**-0.5 * LOG2_E.value),
            *(*q_BHQd.stride()[:3], *k_BGKd.stride()[:3], *v_BGKd.stride()[:3]),
            *(row_stride(i), row_stride(j), row_stride(ranges)),
            *(*sizes, padded_size(d), precision(q_BHQd.dtype)),
        )
    return out, lse


def key_ranges(mask: Mask, q_block: int, k_block: int) -> Tensor:
    """For each block of queries, the blocks of keys that may hold a visible key.

    The ranges are exact for rows in ascending order, with padding anywhere. In any other order they
    are wider, but never miss a visible key.

    Returns:
        (R, N, 4) int32, with the stops excluded: blocks [0] to [1] hold sinks, [2] to [3] the
        window.
    """
    sinks, window = mask[2:]
    low_q, high_q, low_k, high_k = _bounds(mask, q_block, k_block)
    least_from = _least_from(low_k)
    start = torch.searchsorted(high_k.cummax(1).values, low_q - window + 1)
    stop = torch.searchsorted(least_from, high_q, right=True)
    sink_start = (low_k.cummin(1).values >= sinks).sum(1, keepdim=True).expand_as(start)
    sink_stop = (least_from < sinks).sum(1, keepdim=True).minimum(start).minimum(stop)
    return torch.stack([sink_start, sink_stop, start, stop], dim=-1).int()


def query_ranges(mask: Mask, q_block: int, k_block: int) -> Tensor:
    """For each block of keys, the blocks of queries that may see one of its keys.

    All later queries see a block that holds a sink.

    Returns:
        (R, N, 2) int32, with the stops excluded.
    """
    sinks, window = mask[2:]
    low_q, high_q, low_k, high_k = _bounds(mask, q_block, k_block)
    start = torch.searchsorted(high_q.cummax(1).values, low_k)
    stop = torch.searchsorted(_least_from(low_q), high_k + window)
    stop = stop.masked_fill(low_k < sinks, low_q.shape[1])
    return torch.stack([start, stop], dim=-1).int()


def _bounds(mask: Mask, *sizes: int) -> list[Tensor]:
    """Lowest and highest position (R, N) of each block of queries, then of each block of keys.

    NEVER and -1 if all of a block is padding.
    """
    bounds = []
    for positions_RT, block in zip(mask[:2], sizes, strict=True):
        blocks = F.pad(positions_RT, (0, -positions_RT.shape[1] % block), value=-1)
        blocks = blocks.unflatten(1, (-1, block))
        bounds += [blocks.masked_fill(blocks < 0, NEVER).amin(-1), blocks.amax(-1)]
    rows = max(len(x) for x in bounds)
    return [x.expand(rows, -1).contiguous() for x in bounds]


def _least_from(low_RN: Tensor) -> Tensor:
    """Lowest position in each block and all later ones (R, N); it never decreases."""
    return low_RN.flip(1).cummin(1).values.flip(1).contiguous()
