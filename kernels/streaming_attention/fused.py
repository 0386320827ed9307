"""Triton's streaming attention as torch operators, for autograd and torch.compile.

Shapes: B batch, H query heads, G key/value heads, Q queries, K keys, d head size, R is B or 1.
"""

from typing import Any

import torch
from torch import Tensor

from layerwright.kernels.operators import operator_name
from layerwright.kernels.streaming_attention.triton_backward import gradients
from layerwright.kernels.streaming_attention.triton_decode import attend_once
from layerwright.kernels.streaming_attention.triton_forward import attend


def streaming_attention_fused(
    q_BHQd: Tensor,
    k_BGKd: Tensor,
    v_BGKd: Tensor,
    q_positions_RQ: Tensor,
    k_positions_RK: Tensor,
    sinks: int,
    window: int,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Streaming attention that reads no block outside the mask. Differentiable once.

    Args and returns are those of `streaming_attention`.
    """
    positions = (x.to(q_BHQd.device, non_blocking=True) for x in (q_positions_RQ, k_positions_RK))
    out, lse = _forward(q_BHQd, k_BGKd, v_BGKd, *positions, sinks, window)
    return (out, lse) if return_lse else out


@torch.library.custom_op(operator_name("streaming_attention"), mutates_args=())
def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_positions: Tensor,
    k_positions: Tensor,
    sinks: int,
    window: int,
) -> tuple[Tensor, Tensor]:
    B, H, Q, d = q.shape
    if Q == 0 or k.shape[2] == 0:
        lse = q.new_full((B, H, Q), -torch.inf, dtype=torch.float32)
        return q.new_zeros(B, H, Q, d), lse
    run = attend_once if Q == 1 else attend
    return run(q, k, v, q_positions.contiguous(), k_positions.contiguous(), sinks, window)


@_forward.register_fake
def _(q: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape[:3], dtype=torch.float32)


@torch.library.custom_op(operator_name("streaming_attention_backward"), mutates_args=())
def _backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_positions: Tensor,
    k_positions: Tensor,
    sinks: int,
    window: int,
    out: Tensor,
    lse: Tensor,
    d_out: Tensor,
    d_lse: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    if q.shape[2] == 0 or k.shape[2] == 0:
        return q.new_zeros(q.shape), k.new_zeros(k.shape), v.new_zeros(v.shape)
    positions = q_positions.contiguous(), k_positions.contiguous()
    return gradients(q, k, v, *positions, sinks, window, out, lse, d_out, d_lse)


@_backward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.sinks, ctx.window = inputs
    ctx.save_for_backward(*tensors, *output)


def _differentiate(ctx: Any, d_out: Tensor, d_lse: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, q_positions, k_positions, out, lse = ctx.saved_tensors
    mask = q_positions, k_positions, ctx.sinks, ctx.window
    return *_backward(q, k, v, *mask, out, lse, d_out, d_lse), None, None, None, None


_forward.register_autograd(_differentiate, setup_context=_save)
