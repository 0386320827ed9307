"""Scores within chunks and states between them, and what the recurrence's Triton kernels share.

Names are those of README.md, "Two pairs": x and y are the pair with decayed channels c, u and z the
pair with plain channels p. x and u belong to the query heads; y, z and the log decay g belong to
the key/value heads. A token t reads what the tokens i <= t of its chunk wrote.
Shapes: B batch, H query heads, G key/value heads, T tokens in N chunks of BT, C decayed and P plain
channels; BC and BP are the channels of one tile.
"""

from typing import Any

import torch
from torch import Tensor

from layerwright.kernels.launch import EXACT, precision, tl, triton, tuned

CHUNK = 64
TILE = 64  # channels per tile in kernels that only multiply
LEAST_LOG = tl.constexpr(-200.0)  # exp(-200) is 0 in fp32; -inf would give 0 * -inf = NaN


@triton.jit
def load_rows(p, o_t, o_c, T, C, stride):
    """Rows [BT, BC] of tokens in fp32; zeros past the last token or channel."""
    mask = (o_t < T)[:, None] & (o_c < C)[None, :]
    p += o_t.to(tl.int64)[:, None] * stride + o_c[None, :]
    return tl.load(p, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def load_log_decay(p, o_t, o_c, T, C, stride):
    """Log decays [BT, BC] in fp32, at least LEAST_LOG."""
    return tl.maximum(load_rows(p, o_t, o_c, T, C, stride), LEAST_LOG)


@triton.jit
def up_to(BT: tl.constexpr):
    """[BT, BT], 1 where j <= t: times g it is the log decay from the chunk's start through t."""
    o = tl.arange(0, BT)
    return (o[None, :] <= o[:, None]).to(tl.float32)


@triton.jit
def after(BT: tl.constexpr):
    """[BT, BT], 1 where j > t: times g it is the log decay from t + 1 through the chunk's end."""
    o = tl.arange(0, BT)
    return (o[None, :] > o[:, None]).to(tl.float32)


@triton.jit
def within(size, BT: tl.constexpr):
    """`up_to` in the odd segments of `size` tokens and `after` in the even ones."""
    o = tl.arange(0, BT)
    t, j = o[:, None], o[None, :]
    start = t // size * size
    odd = (t // size) % 2 == 1
    return tl.where(odd, (j >= start) & (j <= t), (j > t) & (j < start + size)).to(tl.float32)


@triton.jit
def pairs(size, BT: tl.constexpr):
    """[BT, BT], true where t is in an odd segment of `size` tokens and i in the segment before."""
    o = tl.arange(0, BT)
    segment, earlier = o[:, None] // size, o[None, :] // size
    return (segment % 2 == 1) & (earlier == segment - 1)


@triton.jit
def _decayed_kernel(
    p_x, p_y, p_g, p_a, T, H, G, C,
    x_b, x_h, x_t, y_b, y_h, y_t, g_b, g_h, g_t,
    BT: tl.constexpr, BC: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    i_n, i_bh = tl.program_id(0), tl.program_id(1)
    i_b, i_h = (i_bh // H).to(tl.int64), (i_bh % H).to(tl.int64)
    i_g = i_h // (H // G)
    o = tl.arange(0, BT)
    o_t = i_n * BT + o
    b_a = tl.zeros([BT, BT], tl.float32)
    for i_c in range(tl.cdiv(C, BC)):
        o_c = i_c * BC + tl.arange(0, BC)
        b_x = load_rows(p_x + i_b * x_b + i_h * x_h, o_t, o_c, T, C, x_t)
        b_y = load_rows(p_y + i_b * y_b + i_g * y_h, o_t, o_c, T, C, y_t)
        b_g = load_log_decay(p_g + i_b * g_b + i_g * g_h, o_t, o_c, T, C, g_t)
        b_a += tl.where(o[:, None] == o[None, :], tl.sum(b_x * b_y, axis=1)[:, None], 0.0)
        size = 1
        while size < BT:
            b_w = tl.exp(tl.dot(within(size, BT), b_g, input_precision=EXACT))
            b_s = tl.dot(b_x * b_w, tl.trans(b_y * b_w), input_precision=PRECISION)
            b_a += tl.where(pairs(size, BT), b_s, 0.0)
            size *= 2
    p_a += (i_bh.to(tl.int64) * T + o_t)[:, None] * BT + o[None, :]
    tl.store(p_a, b_a, mask=(o_t < T)[:, None])


@triton.jit
def _plain_kernel(
    p_u, p_z, p_a, T, H, G, P, u_b, u_h, u_t, z_b, z_h, z_t,
    BT: tl.constexpr, BP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    i_n, i_bh = tl.program_id(0), tl.program_id(1)
    i_b, i_h = (i_bh // H).to(tl.int64), (i_bh % H).to(tl.int64)
    i_g = i_h // (H // G)
    o = tl.arange(0, BT)
    o_t = i_n * BT + o
    b_a = tl.zeros([BT, BT], tl.float32)
    for i_p in range(tl.cdiv(P, BP)):
        o_p = i_p * BP + tl.arange(0, BP)
        b_u = load_rows(p_u + i_b * u_b + i_h * u_h, o_t, o_p, T, P, u_t)
        b_z = load_rows(p_z + i_b * z_b + i_g * z_h, o_t, o_p, T, P, z_t)
        b_a += tl.dot(b_u, tl.trans(b_z), input_precision=PRECISION)
    b_a = tl.where(o[:, None] >= o[None, :], b_a, 0.0)
    p_a += (i_bh.to(tl.int64) * T + o_t)[:, None] * BT + o[None, :]
    tl.store(p_a, b_a, mask=(o_t < T)[:, None])


@triton.jit
def _states_kernel(
    p_a, p_e, p_g, p_first, p_states, p_last, T, N, H, G, C, P,
    a_b, a_h, a_t, e_b, e_h, e_t, g_b, g_h, g_t,
    BT: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr,
    REVERSE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    i_tile, i_bg = tl.program_id(0), tl.program_id(1)
    i_b, i_g = (i_bg // G).to(tl.int64), (i_bg % G).to(tl.int64)
    tiles = tl.cdiv(P, BP)
    o_c = i_tile // tiles * BC + tl.arange(0, BC)
    o_p = i_tile % tiles * BP + tl.arange(0, BP)
    o_s = o_c[:, None] * P + o_p[None, :]
    m_s = (o_c < C)[:, None] & (o_p < P)[None, :]
    b_s = tl.load(p_first + i_bg.to(tl.int64) * C * P + o_s, mask=m_s, other=0.0)  # [BC, BP]
    if REVERSE:
        p_states += (i_bg.to(tl.int64) * N + N - 1) * C * P
    else:
        p_states += i_bg.to(tl.int64) * N * C * P
    r = H // G
    for step in range(N):
        tl.store(p_states + o_s, b_s, mask=m_s)
        if REVERSE:
            p_states -= C * P
            o_t = (N - 1 - step) * BT + tl.arange(0, BT)
        else:
            p_states += C * P
            o_t = step * BT + tl.arange(0, BT)
        b_g = load_log_decay(p_g + i_b * g_b + i_g * g_h, o_t, o_c, T, C, g_t)
        side = up_to(BT) if REVERSE else after(BT)
        b_w = tl.exp(tl.dot(side, b_g, input_precision=EXACT))  # [BT, BC]
        b_s *= tl.exp(tl.sum(b_g, axis=0))[:, None]
        for i_r in range(r):
            i_h = i_g * r + i_r
            b_a = load_rows(p_a + i_b * a_b + i_h * a_h, o_t, o_c, T, C, a_t) * b_w
            b_e = load_rows(p_e + i_b * e_b + i_h * e_h, o_t, o_p, T, P, e_t)
            b_s += tl.dot(tl.trans(b_a), b_e, input_precision=PRECISION)
    tl.store(p_last + i_bg.to(tl.int64) * C * P + o_s, b_s, mask=m_s)


_DECAYED = tuned(_decayed_kernel, ("C", "BC"))
_PLAIN = tuned(_plain_kernel, ("P", "BP"))
_STATES = tuned(_states_kernel, ("C", "P", "BC", "BP", "REVERSE"))


def decayed_scores(x_BHTC: Tensor, y_BGTC: Tensor, g_BGTC: Tensor) -> Tensor:
    """A[t, i] = sum over c of x_t y_i exp(g_{i+1} + .. + g_t), shaped as in `plain_scores`."""
    return _scores(_DECAYED, x_BHTC, y_BGTC, g_BGTC)


def plain_scores(u_BHTP: Tensor, z_BGTP: Tensor) -> Tensor:
    """A[t, i] = u_t · z_i for i <= t in t's chunk, (B, H, T, BT) in fp32."""
    return _scores(_PLAIN, u_BHTP, z_BGTP)


def _scores(kernel: Any, *inputs: Tensor) -> Tensor:
    left, right = inputs[:2]
    B, H, T, channels = left.shape
    a = torch.empty(B, H, T, CHUNK, dtype=torch.float32, device=left.device)
    with torch.cuda.device_of(a):
        kernel[(triton.cdiv(T, CHUNK), B * H)](
            *(*inputs, a, T, H, right.shape[1], channels),
            *(stride for x in inputs for stride in x.stride()[:3]),
            *(CHUNK, tile(channels), precision(left.dtype, right.dtype)),
        )
    return a


def states(
    a_BhTC: Tensor, e_BhTP: Tensor, g_BGTC: Tensor, first_BGCP: Tensor, reverse: bool = False
) -> tuple[Tensor, Tensor]:
    """The states at the borders of the chunks, in fp32.

    Forward, with a = y and e = z: the state S before each chunk, from `first` on, and S after the
    last chunk. Backward, with a = x and e = u: the gradient D of the state after each chunk, from
    the last state's gradient `first` on, and the gradient of the initial state.

    Returns:
        (B, G, N, C, P) and (B, G, C, P).
    """
    B, h, T, C = a_BhTC.shape
    G, P = g_BGTC.shape[1], e_BhTP.shape[3]
    N = triton.cdiv(T, CHUNK)
    borders = torch.empty(B, G, N, C, P, dtype=torch.float32, device=a_BhTC.device)
    last = torch.empty(B, G, C, P, dtype=torch.float32, device=a_BhTC.device)
    BC, BP = tile(C), tile(P)
    with torch.cuda.device_of(borders):
        _STATES[(triton.cdiv(C, BC) * triton.cdiv(P, BP), B * G)](
            *(a_BhTC, e_BhTP, g_BGTC, first_BGCP.contiguous(), borders, last, T, N, h, G, C, P),
            *(*a_BhTC.stride()[:3], *e_BhTP.stride()[:3], *g_BGTC.stride()[:3]),
            *(CHUNK, BC, BP, reverse, precision(a_BhTC.dtype, e_BhTP.dtype)),
        )
    return borders, last


def tile(channels: int, most: int = TILE) -> int:
    """Channels per tile: a power of two from 16 to `most` that covers a small head."""
    return min(max(triton.next_power_of_2(channels), 16), most)
