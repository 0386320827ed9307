"""Kernel for the states between chunks (forward) and their gradients (backward).

Names and shapes are those of triton_scores.py; a state is (C, P), decayed channels first.
"""

import torch
from torch import Tensor

from layerwright.kernels.gated_recurrence.triton_scores import (
    CHUNK,
    after,
    load_log_decay,
    load_rows,
    tile,
    up_to,
)
from layerwright.kernels.launch import EXACT, precision, tl, triton, tuned


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


_STATES = tuned(_states_kernel, ("C", "P", "BC", "BP", "REVERSE"))


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
