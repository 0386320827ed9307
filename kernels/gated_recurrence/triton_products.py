"""Kernels that turn scores and states into outputs, or gradients, of x, y, u, z and the decay.

Names and shapes are those of triton_scores.py: scores A (B, H, T, BT), states S and their gradients
D (B, G, N, C, P).
"""

from typing import Any

import torch
from torch import Tensor

from layerwright.kernels.gated_recurrence.triton_scores import (
    CHUNK,
    after,
    load_log_decay,
    load_rows,
    pairs,
    tile,
    up_to,
    within,
)
from layerwright.kernels.launch import EXACT, precision, tl, triton, tuned

SMALL_TILE = 32  # channels per tile of the decayed kernel, which holds nine tiles


@triton.jit
def _read_kernel(
    p_a, p_x, p_z, p_g, p_s, p_u, T, N, H, G, C, P,
    x_b, x_h, x_t, z_b, z_h, z_t, g_b, g_h, g_t,
    BT: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """u_t = sum over i of A[t, i] z_i + (x_t exp(g up to t)) S."""
    i_tile, i_bh = tl.program_id(0), tl.program_id(1)
    i_b, i_h = (i_bh // H).to(tl.int64), (i_bh % H).to(tl.int64)
    i_g = i_h // (H // G)
    tiles = tl.cdiv(P, BP)
    i_n, o_p = i_tile // tiles, i_tile % tiles * BP + tl.arange(0, BP)
    o_t = i_n * BT + tl.arange(0, BT)
    o_row = i_bh.to(tl.int64) * T + o_t
    o_i = tl.arange(0, BT)
    b_a = tl.load(p_a + o_row[:, None] * BT + o_i[None, :], mask=(o_t < T)[:, None], other=0.0)
    b_z = load_rows(p_z + i_b * z_b + i_g * z_h, o_t, o_p, T, P, z_t)
    b_u = tl.dot(b_a, b_z, input_precision=PRECISION)  # [BT, BP]
    p_s += ((i_b * G + i_g) * N + i_n) * C * P
    for i_c in range(tl.cdiv(C, BC)):
        o_c = i_c * BC + tl.arange(0, BC)
        b_g = load_log_decay(p_g + i_b * g_b + i_g * g_h, o_t, o_c, T, C, g_t)
        b_w = tl.exp(tl.dot(up_to(BT), b_g, input_precision=EXACT))
        b_x = load_rows(p_x + i_b * x_b + i_h * x_h, o_t, o_c, T, C, x_t) * b_w
        m_s = (o_c < C)[:, None] & (o_p < P)[None, :]
        b_s = tl.load(p_s + o_c[:, None] * P + o_p[None, :], mask=m_s, other=0.0)
        b_u += tl.dot(b_x, b_s, input_precision=PRECISION)
    m_u = (o_t < T)[:, None] & (o_p < P)[None, :]
    p_u += o_row[:, None] * P + o_p[None, :]
    tl.store(p_u, b_u.to(p_u.dtype.element_ty), mask=m_u)


@triton.jit
def _write_kernel(
    p_a, p_y, p_u, p_g, p_d, p_z, T, N, H, G, C, P,
    y_b, y_h, y_t, u_b, u_h, u_t, g_b, g_h, g_t,
    BT: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """z_i = sum over heads and t of A[t, i] u_t + (y_i exp(g after i)) D."""
    i_tile, i_bg = tl.program_id(0), tl.program_id(1)
    i_b, i_g = (i_bg // G).to(tl.int64), (i_bg % G).to(tl.int64)
    tiles = tl.cdiv(P, BP)
    i_n, o_p = i_tile // tiles, i_tile % tiles * BP + tl.arange(0, BP)
    o_t = i_n * BT + tl.arange(0, BT)
    o_i = tl.arange(0, BT)
    b_z = tl.zeros([BT, BP], tl.float32)
    p_d += (i_bg.to(tl.int64) * N + i_n) * C * P
    for i_c in range(tl.cdiv(C, BC)):
        o_c = i_c * BC + tl.arange(0, BC)
        b_g = load_log_decay(p_g + i_b * g_b + i_g * g_h, o_t, o_c, T, C, g_t)
        b_w = tl.exp(tl.dot(after(BT), b_g, input_precision=EXACT))
        b_y = load_rows(p_y + i_b * y_b + i_g * y_h, o_t, o_c, T, C, y_t) * b_w
        m_d = (o_c < C)[:, None] & (o_p < P)[None, :]
        b_d = tl.load(p_d + o_c[:, None] * P + o_p[None, :], mask=m_d, other=0.0)
        b_z += tl.dot(b_y, b_d, input_precision=PRECISION)
    r = H // G
    for i_r in range(r):
        i_h = i_g * r + i_r
        o_a = ((i_b * H + i_h) * T + o_t)[:, None] * BT + o_i[None, :]
        b_a = tl.load(p_a + o_a, mask=(o_t < T)[:, None], other=0.0)
        b_u = load_rows(p_u + i_b * u_b + i_h * u_h, o_t, o_p, T, P, u_t)
        b_z += tl.dot(tl.trans(b_a), b_u, input_precision=PRECISION)
    m_z = (o_t < T)[:, None] & (o_p < P)[None, :]
    p_z += (i_bg.to(tl.int64) * T + o_t)[:, None] * P + o_p[None, :]
    tl.store(p_z, b_z.to(p_z.dtype.element_ty), mask=m_z)


@triton.jit
def _from_state(p_e, p_s, o_t, o_c, T, C, P, e_t, BP: tl.constexpr, PRECISION: tl.constexpr):
    """The product e Sᵀ, [BT, BC], summed over all plain channels."""
    b_x = tl.zeros([o_t.shape[0], o_c.shape[0]], tl.float32)
    for i_p in range(tl.cdiv(P, BP)):
        o_p = i_p * BP + tl.arange(0, BP)
        b_e = load_rows(p_e, o_t, o_p, T, P, e_t)
        b_s = load_rows(p_s, o_c, o_p, C, P, P)
        b_x += tl.dot(b_e, tl.trans(b_s), input_precision=PRECISION)
    return b_x


@triton.jit
def _decayed_kernel(
    p_a, p_x, p_y, p_u, p_z, p_g, p_s, p_d, p_ox, p_oy, p_og, T, N, H, G, C, P,
    x_b, x_h, x_t, y_b, y_h, y_t, u_b, u_h, u_t, z_b, z_h, z_t, g_b, g_h, g_t,
    BT: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr,
    GIVE_X: tl.constexpr, GIVE_Y: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The x side, the y side and the gradient of the log decay (README.md, "Two pairs").

    x_t = sum over i of A[t, i] y_i exp(g between i and t) + exp(g up to t) (u_t Sᵀ). The y side is
    the same with Dᵀ.
    """
    i_tile, i_bg = tl.program_id(0), tl.program_id(1)
    i_b, i_g = (i_bg // G).to(tl.int64), (i_bg % G).to(tl.int64)
    tiles = tl.cdiv(C, BC)
    i_n, o_c = i_tile // tiles, i_tile % tiles * BC + tl.arange(0, BC)
    o = tl.arange(0, BT)
    o_t = i_n * BT + o
    m_out = (o_t < T)[:, None] & (o_c < C)[None, :]
    diagonal = o[:, None] == o[None, :]
    b_g = load_log_decay(p_g + i_b * g_b + i_g * g_h, o_t, o_c, T, C, g_t)
    b_y = load_rows(p_y + i_b * y_b + i_g * y_h, o_t, o_c, T, C, y_t)
    b_upto = tl.exp(tl.dot(up_to(BT), b_g, input_precision=EXACT))
    p_s += (i_bg.to(tl.int64) * N + i_n) * C * P
    b_oy = tl.zeros([BT, BC], tl.float32)
    b_og = tl.zeros([BT, BC], tl.float32)
    b_early = tl.zeros([BT, BC], tl.float32)  # gradient of the log decays up to each token
    if GIVE_Y:
        p_d += (i_bg.to(tl.int64) * N + i_n) * C * P
        p_zg = p_z + i_b * z_b + i_g * z_h
        b_after = tl.exp(tl.dot(after(BT), b_g, input_precision=EXACT))
        b_oy = b_after * _from_state(p_zg, p_d, o_t, o_c, T, C, P, z_t, BP, PRECISION)
        b_og = tl.dot(tl.trans(after(BT)), b_y * b_oy, input_precision=EXACT)
        b_total = tl.zeros([BC], tl.float32)
        for i_p in range(tl.cdiv(P, BP)):
            o_p = i_p * BP + tl.arange(0, BP)
            b_s = load_rows(p_s, o_c, o_p, C, P, P)
            b_total += tl.sum(b_s * load_rows(p_d, o_c, o_p, C, P, P), axis=1)
        b_og += (b_total * tl.exp(tl.sum(b_g, axis=0)))[None, :]
    r = H // G
    for i_r in range(r):
        i_h = i_g * r + i_r
        p_uh = p_u + i_b * u_b + i_h * u_h
        b_ox = b_upto * _from_state(p_uh, p_s, o_t, o_c, T, C, P, u_t, BP, PRECISION)
        o_row = (i_b * H + i_h) * T + o_t
        o_a = o_row[:, None] * BT + o[None, :]
        b_a = tl.load(p_a + o_a, mask=(o_t < T)[:, None], other=0.0)
        b_self = tl.sum(tl.where(diagonal, b_a, 0.0), axis=1)[:, None]
        if GIVE_Y:
            b_x = load_rows(p_x + i_b * x_b + i_h * x_h, o_t, o_c, T, C, x_t)
            b_early += b_x * b_ox
            b_oy += b_self * b_x
        b_ox += b_self * b_y
        size = 1
        while size < BT:
            side = within(size, BT)
            b_w = tl.exp(tl.dot(side, b_g, input_precision=EXACT))
            b_level = tl.where(pairs(size, BT), b_a, 0.0)
            b_late = b_w * tl.dot(b_level, b_y * b_w, input_precision=PRECISION)
            b_ox += b_late
            if GIVE_Y:
                b_soon = b_w * tl.dot(tl.trans(b_level), b_x * b_w, input_precision=PRECISION)
                b_oy += b_soon
                b_og += tl.dot(tl.trans(side), b_x * b_late + b_y * b_soon, input_precision=EXACT)
            size *= 2
        if GIVE_X:
            p_out = p_ox + o_row[:, None] * C + o_c[None, :]
            tl.store(p_out, b_ox.to(p_ox.dtype.element_ty), mask=m_out)
    if GIVE_Y:
        b_og += tl.dot(tl.trans(up_to(BT)), b_early, input_precision=EXACT)
        o_out = (i_bg.to(tl.int64) * T + o_t)[:, None] * C + o_c[None, :]
        tl.store(p_oy + o_out, b_oy.to(p_oy.dtype.element_ty), mask=m_out)
        tl.store(p_og + o_out, b_og.to(p_og.dtype.element_ty), mask=m_out)


_READ = tuned(_read_kernel, ("C", "P", "BC", "BP"))
_WRITE = tuned(_write_kernel, ("C", "P", "BC", "BP"))
_DECAYED = tuned(_decayed_kernel, ("C", "P", "GIVE_X", "GIVE_Y"))


def read(a: Tensor, x: Tensor, z: Tensor, g: Tensor, states: Tensor, like: Tensor) -> Tensor:
    """The u side, (B, H, T, P): A z + (x exp(g up to t)) S, in the dtype of `like`."""
    return _plain_side(_READ, a, x, z, g, states, like)


def write(a: Tensor, y: Tensor, u: Tensor, g: Tensor, gradients: Tensor, like: Tensor) -> Tensor:
    """The z side, (B, G, T, P): Aᵀ u summed over heads + (y exp(g after i)) D; dtype of `like`."""
    return _plain_side(_WRITE, a, y, u, g, gradients, like)


def _plain_side(
    kernel: Any, a: Tensor, decayed: Tensor, plain: Tensor, g: Tensor, states: Tensor, like: Tensor
) -> Tensor:
    (B, G, N, C, P), (H, T), heads = states.shape, a.shape[1:3], decayed.shape[1]
    out = torch.empty(B, heads, T, P, dtype=like.dtype, device=a.device)
    with torch.cuda.device_of(a):
        kernel[(N * triton.cdiv(P, tile(P)), B * heads)](
            *(a, decayed, plain, g, states, out, T, N, H, G, C, P),
            *(*decayed.stride()[:3], *plain.stride()[:3], *g.stride()[:3]),
            *(CHUNK, tile(C), tile(P), precision(decayed.dtype, plain.dtype)),
        )
    return out


def decayed_sides(
    a: Tensor,
    operands: tuple[Any, ...],
    states: Tensor,
    gradients: Tensor | None = None,
    give_x: bool = True,
) -> tuple[Any, Any, Any]:
    """The x side (B, H, T, C) if `give_x`; given D also the y side and g's gradient (B, G, T, C).

    The operands are x, y, u, z and g; without D, x and z are None.
    """
    _, y, u, _, g = operands
    (B, G, N, C, P), (H, T) = states.shape, a.shape[1:3]
    out_x = torch.empty(B, H, T, C, dtype=u.dtype, device=a.device) if give_x else None
    out_y, out_g = (None if gradients is None else x.new_empty(x.shape) for x in (y, g))
    BC = tile(C, SMALL_TILE)
    strides = [s for x in operands for s in ((0, 0, 0) if x is None else x.stride()[:3])]
    dtypes = [x.dtype for x in operands[:4] if x is not None]
    with torch.cuda.device_of(a):
        _DECAYED[(N * triton.cdiv(C, BC), B * G)](
            *(a, *operands, states, gradients, out_x, out_y, out_g, T, N, H, G, C, P, *strides),
            *(CHUNK, BC, tile(P, SMALL_TILE), give_x, gradients is not None, precision(*dtypes)),
        )
    return out_x, out_y, out_g
