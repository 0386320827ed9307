"""The step in Triton: each program reads and writes VALUES value channels of one state once.

Shapes as in step.py; in the kernel r = H / G query heads, BD >= d key channels, BE value channels.
"""

import torch
from torch import Tensor

from layerwright.kernels.choice import operator_name
from layerwright.kernels.launch import dense_channels, tl, triton

VALUES = 16  # value channels per program: 8 programs per head for a state of 128


@triton.jit
def _step_kernel(
    p_q, p_k, p_v, p_g, p_state, p_out, H, G, d, e,
    q_b, q_h, k_b, k_h, v_b, v_h, g_b, g_h,
    ON_KEYS: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    i_e, i_bg = tl.program_id(0), tl.program_id(1)
    i_b, i_g = (i_bg // G).to(tl.int64), (i_bg % G).to(tl.int64)
    o_d, o_e = tl.arange(0, BD), i_e * BE + tl.arange(0, BE)
    m_d, m_e = o_d < d, o_e < e
    b_k = tl.load(p_k + i_b * k_b + i_g * k_h + o_d, mask=m_d, other=0.0).to(tl.float32)
    b_v = tl.load(p_v + i_b * v_b + i_g * v_h + o_e, mask=m_e, other=0.0).to(tl.float32)
    p_g += i_b * g_b + i_g * g_h
    if ON_KEYS:
        b_a = tl.exp(tl.load(p_g + o_d, mask=m_d, other=0.0).to(tl.float32))[:, None]
    else:
        b_a = tl.exp(tl.load(p_g + o_e, mask=m_e, other=0.0).to(tl.float32))[None, :]
    p_state += (i_bg.to(tl.int64) * d + o_d)[:, None] * e + o_e[None, :]
    m_s = m_d[:, None] & m_e[None, :]
    b_s = tl.load(p_state, mask=m_s, other=0.0) * b_a + b_k[:, None] * b_v[None, :]  # [BD, BE]
    tl.store(p_state, b_s, mask=m_s)
    r = H // G
    for i_r in range(r):
        i_h = i_g * r + i_r
        b_q = tl.load(p_q + i_b * q_b + i_h * q_h + o_d, mask=m_d, other=0.0).to(tl.float32)
        b_out = tl.sum(b_q[:, None] * b_s, axis=0)
        p_row = p_out + (i_b * H + i_h) * e + o_e
        tl.store(p_row, b_out.to(p_out.dtype.element_ty), mask=m_e)


@torch.library.custom_op(operator_name("gated_recurrence_step"), mutates_args=("state",))
def _step(q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor, on_keys: bool) -> Tensor:
    (B, H, _, d), G, e = q.shape, k.shape[1], v.shape[3]
    out = torch.empty(B, H, 1, e, dtype=q.dtype, device=q.device)
    strides = [s for x in (q, k, v, g) for s in x.stride()[:2]]
    with torch.cuda.device_of(q):
        _step_kernel[(triton.cdiv(e, VALUES), B * G)](
            *(q, k, v, g, state, out, H, G, d, e, *strides),
            *(on_keys, triton.next_power_of_2(d), VALUES),
        )
    return out


@_step.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor, on_keys: bool) -> Tensor:
    return q.new_empty(*q.shape[:3], v.shape[3])


def gated_recurrence_step_fused(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor, decayed: str
) -> Tensor:
    """The step in one kernel. Args and returns are those of `gated_recurrence_step`; no mask."""
    if not state.is_contiguous():
        raise ValueError("the state must be contiguous, because it is updated in place")
    tensors = (dense_channels(x) for x in (q, k, v, log_decay))
    return _step(*tensors, state, decayed == "key")
