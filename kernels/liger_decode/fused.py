"""Liger's decode step in Triton: one kernel computes the layer's mixer.

Each program updates VALUES value channels of one state, reads them with all queries of the group,
attends over the same channels of the ring's values, and mixes the two. A head's programs share the
ring's keys, so each reads the new key from its own tensor. Shapes as in dispatch.py, N slots; in
the kernel BR >= r = H / G rows, BN slots, BD >= d channels, BE value channels.
"""

from typing import Any

import torch
from torch import Tensor

from layerwright.kernels.choice import operator_name
from layerwright.kernels.launch import (
    EXACT,
    LOG2_E,
    MAX_TOKENS,
    SMALLEST_DOT,
    dense_channels,
    padded_size,
    precision,
    product,
    row_stride,
    softmax_step,
    tl,
    triton,
)
from layerwright.kernels.liger_decode.reference import DAMPING, LigerMix, NewToken
from layerwright.kernels.ring import Ring
from layerwright.kernels.streaming_attention.triton_forward import block_sizes

VALUES = 32  # value channels per program


@triton.jit
def _decode_kernel(
    p_q, p_k, p_v, p_rq, p_rk, p_keys, p_values, p_there, p_i, p_slot, p_state, p_bias, p_shares,
    p_out, N, H, G, d, sinks, window, scale, damping,
    q_b, q_h, k_b, k_h, v_b, v_h, rq_b, rq_h, rk_b, rk_h, i_row,
    SOFT: tl.constexpr, BR: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    i_e, i_bg = tl.program_id(0), tl.program_id(1)
    i_b, i_g = (i_bg // G).to(tl.int64), (i_bg % G).to(tl.int64)
    r = H // G
    o_r, o_d, o_e = tl.arange(0, BR), tl.arange(0, BD), i_e * BE + tl.arange(0, BE)
    m_r, m_d, m_e = o_r < r, o_d < d, o_e < d
    i_h = i_g * r + o_r
    m_q = m_r[:, None] & m_d[None, :]

    # the state: S <- G S + φ(k)ᵀ v
    b_v = tl.load(p_v + i_b * v_b + i_g * v_h + o_e, mask=m_e, other=0.0)  # [BE]
    b_k = tl.load(p_k + i_b * k_b + i_g * k_h + o_d, mask=m_d, other=0.0).to(tl.float32)  # [BD]
    b_x = b_k
    if p_bias is not None:
        b_x += tl.load(p_bias + i_g * d + o_d, mask=m_d, other=0.0).to(tl.float32)
    # logsigmoid(x) = min(x, 0) - log(1 + exp(-|x|))
    b_g = (tl.minimum(b_x, 0.0) - tl.log(1.0 + tl.exp(-tl.abs(b_x)))) / damping
    b_a = tl.exp(b_g)
    if SOFT:
        b_y = tl.where(m_d, b_k, float("-inf"))
        b_y = tl.exp(b_y - tl.max(b_y, axis=0))
        b_y = b_y / tl.sum(b_y, axis=0)
    else:
        # 1 - sigmoid(x) = sigmoid(-x), exact where the gate is near 1
        b_y = tl.where(m_d, 1.0 / (1.0 + tl.exp(b_x)), 0.0)
    p_state += (i_bg.to(tl.int64) * d + o_d)[:, None] * d + o_e[None, :]
    m_s = m_d[:, None] & m_e[None, :]
    b_s = tl.load(p_state, mask=m_s, other=0.0) * b_a[:, None]  # [BD, BE]
    b_s += b_y[:, None] * b_v.to(tl.float32)[None, :]
    tl.store(p_state, b_s, mask=m_s)
    p_q += i_b * q_b + i_h[:, None] * q_h + o_d[None, :]
    b_q = tl.load(p_q, mask=m_q, other=float("-inf")).to(tl.float32)  # [BR, BD]
    b_q = tl.where(m_r[:, None], b_q, 0.0)
    b_q = tl.exp(b_q - tl.max(b_q, axis=1)[:, None])
    b_q = b_q / tl.sum(b_q, axis=1)[:, None]
    b_memory = tl.dot(b_q, b_s, input_precision=EXACT)  # [BR, BE]

    # the window: the new token replaces the content of its slot
    i = tl.load(p_i + i_b * i_row).to(tl.int32)
    slot = tl.load(p_slot + i_b * i_row).to(tl.int32)
    b_rq = tl.load(p_rq + i_b * rq_b + i_h[:, None] * rq_h + o_d[None, :], mask=m_q, other=0.0)
    b_rk = tl.load(p_rk + i_b * rk_b + i_g * rk_h + o_d, mask=m_d, other=0.0)  # [BD]
    p_keys += i_bg.to(tl.int64) * N * d
    p_values += i_bg.to(tl.int64) * N * d
    p_there += i_b * i_row * N
    b_window = tl.zeros([BR, BE], tl.float32)
    b_max = tl.full([BR], float("-inf"), tl.float32)
    b_sum = tl.zeros([BR], tl.float32)
    for block in range(tl.cdiv(N, BN)):
        o_n = block * BN + tl.arange(0, BN)
        new = o_n == slot
        b_j = tl.load(p_there + o_n, mask=o_n < N, other=-1).to(tl.int32)  # [BN]
        visible = (b_j >= 0) & (b_j <= i) & ((i - b_j < window) | (b_j < sinks)) & (o_n < N)
        old = (visible & (o_n != slot))[:, None]
        o_nd, o_ne = o_n[:, None] * d + o_d[None, :], o_n[:, None] * d + o_e[None, :]
        b_keys = tl.load(p_keys + o_nd, mask=old & m_d[None, :], other=0.0)
        b_keys = tl.where(new[:, None], b_rk[None, :], b_keys)
        b_values = tl.load(p_values + o_ne, mask=old & m_e[None, :], other=0.0)
        b_values = tl.where(new[:, None], b_v[None, :], b_values)
        b_p = product(b_rq, tl.trans(b_keys), PRECISION) * scale  # [BR, BN]
        b_p = tl.where((visible | new)[None, :], b_p, float("-inf"))
        b_window, b_max, b_sum = softmax_step(b_p, b_values, b_window, b_max, b_sum, PRECISION)
    b_window = b_window / b_sum[:, None]
    # the programs of a head store the same key and position, and none of them reads that slot
    tl.store(p_keys + slot * d + o_d, b_rk, mask=m_d)
    tl.store(p_values + slot * d + o_e, b_v, mask=m_e)
    tl.store(p_there + slot, i)

    alpha = tl.load(p_shares + i_h, mask=m_r, other=0.0)
    beta = tl.load(p_shares + H + i_h, mask=m_r, other=0.0)
    b_out = alpha[:, None] * b_memory + beta[:, None] * b_window
    p_out += (i_b * H + i_h)[:, None] * d + o_e[None, :]
    tl.store(p_out, b_out.to(p_out.dtype.element_ty), mask=m_r[:, None] & m_e[None, :])


@torch.library.custom_op(
    operator_name("liger_decode"), mutates_args=("keys", "values", "there", "state")
)
def _decode(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rotated_q: Tensor,
    rotated_k: Tensor,
    keys: Tensor,
    values: Tensor,
    there: Tensor,
    positions: Tensor,
    slots: Tensor,
    state: Tensor,
    bias: Tensor | None,
    shares: Tensor,
    soft: bool,
    damping: float,
    sinks: int,
    window: int,
) -> Tensor:
    (B, H, _, d), (G, N) = q.shape, keys.shape[1:3]
    out = torch.empty(B, H, 1, d, dtype=v.dtype, device=v.device)
    strides = [s for x in (q, k, v, rotated_q, rotated_k) for s in x.stride()[:2]]
    with torch.cuda.device_of(q):
        _decode_kernel[(triton.cdiv(d, VALUES), B * G)](
            *(q, k, v, rotated_q, rotated_k, keys, values, there, positions, slots),
            *(state, bias, shares, out, N, H, G, d, sinks, window, d**-0.5 * LOG2_E.value),
            *(damping, *strides, row_stride(positions), soft),
            *(max(triton.next_power_of_2(H // G), SMALLEST_DOT), block_sizes(d, keys.dtype)[1]),
            *(padded_size(d), VALUES, precision(rotated_q.dtype, keys.dtype)),
        )
    return out


@_decode.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, *others: Any) -> Tensor:
    return v.new_empty(q.shape)


def liger_decode_fused(token: NewToken, ring: Ring, state_BGdd: Tensor, mix: LigerMix) -> Tensor:
    """The step in one kernel. Args and returns are those of `liger_decode`."""
    *vectors, positions_R1 = token
    cache = ring.keys, ring.values, ring.positions
    if not all(x.is_contiguous() for x in (*cache, state_BGdd)):
        raise ValueError("ring and state must be contiguous, because they are updated in place")
    return _decode(
        *(dense_channels(x) for x in vectors),
        *(*cache, positions_R1.contiguous(), ring.slots(positions_R1).contiguous(), state_BGdd),
        None if mix.bias is None else mix.bias.contiguous(),
        mix.shares.float().contiguous(),
        *(mix.gate == "gla", float(DAMPING[mix.gate]), ring.sinks, min(mix.window, MAX_TOKENS)),
    )
