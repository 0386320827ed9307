"""Triton's streaming attention as torch operators, for autograd and torch.compile.

Shapes: B batch, H query heads, G key/value heads, Q queries, K keys, d head size, R is B or 1.
"""

from typing import Any

import torch
from torch import Tensor

from layerwright.kernels.choice import operator_name
from layerwright.kernels.launch import MAX_TOKENS, dense_channels
from layerwright.kernels.streaming_attention.reference import Mask
from layerwright.kernels.streaming_attention.triton_backward import gradients, row_delta
from layerwright.kernels.streaming_attention.triton_decode import attend_once
from layerwright.kernels.streaming_attention.triton_forward import attend


def streaming_attention_fused(
    q_BHQd: Tensor,
    k_BGKd: Tensor,
    v_BGKd: Tensor,
    *mask: *Mask,
    return_lse: bool = False,
    sink_logits_H: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Streaming attention that reads no block outside the mask. Differentiable once.

    Args and returns are those of `streaming_attention`.
    """
    positions = (x.to(q_BHQd.device, non_blocking=True) for x in mask[:2])
    logits = None if sink_logits_H is None else sink_logits_H.float()
    reach = mask[2], min(mask[3], MAX_TOKENS)
    out, lse = _forward(q_BHQd, k_BGKd, v_BGKd, *positions, *reach, logits)
    return (out, lse) if return_lse else out


@torch.library.custom_op(operator_name("streaming_attention"), mutates_args=())
def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    j: Tensor,
    sinks: int,
    window: int,
    sink_logits: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Positions i (R, Q) and j (R, K) of queries and keys."""
    if q.shape[2] == 0 or k.shape[2] == 0:
        return q.new_zeros(q.shape), q.new_full(q.shape[:3], -torch.inf, dtype=torch.float32)
    run = attend_once if q.shape[2] == 1 else attend
    inputs = dense_channels(q), dense_channels(k), dense_channels(v)
    positions = i.contiguous(), j.contiguous()
    return run(*inputs, *positions, sinks, window, sink_logits_H=sink_logits)


@_forward.register_fake
def _(q: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape[:3], dtype=torch.float32)


@torch.library.custom_op(operator_name("streaming_attention_backward"), mutates_args=())
def _backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    j: Tensor,
    sinks: int,
    window: int,
    out: Tensor,
    lse: Tensor,
    d_out: Tensor,
    d_lse: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    if q.shape[2] == 0 or k.shape[2] == 0:
        return q.new_zeros(q.shape), k.new_zeros(k.shape), v.new_zeros(v.shape)
    mask = i.contiguous(), j.contiguous(), sinks, window
    inputs = dense_channels(q), dense_channels(k), dense_channels(v)
    return gradients(inputs, mask, (out, lse), (d_out, d_lse))


@_backward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.sinks, ctx.window, sink_logits = inputs
    ctx.save_for_backward(*tensors, *output, sink_logits)


def _differentiate(ctx: Any, d_out: Tensor, d_lse: Tensor) -> tuple[Tensor | None, ...]:
    *inputs, out, lse, sink_logits = ctx.saved_tensors
    results = _backward(*inputs, ctx.sinks, ctx.window, out, lse, d_out, d_lse)
    d_logits = None
    if sink_logits is not None:  # d score = p (dp - delta), and dp is 0 for a value of zero
        share = (sink_logits[:, None] - lse).exp().masked_fill(lse.isneginf(), 0)
        d_logits = -(share * row_delta((out, lse), (d_out, d_lse))).sum((0, 2))
    return *results, None, None, None, None, d_logits


_forward.register_autograd(_differentiate, setup_context=_save)
