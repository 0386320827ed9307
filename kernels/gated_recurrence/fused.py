"""Triton's gated linear attention as torch operators, for autograd and torch.compile.

Shapes: B batch, H query heads, G key/value heads, T tokens, d key channels, e value channels, c = d
or e decayed channels.
"""

from typing import Any

import torch
from torch import Tensor

from layerwright.kernels.choice import operator_name
from layerwright.kernels.gated_recurrence.triton_products import decayed_sides, read, write
from layerwright.kernels.gated_recurrence.triton_scores import decayed_scores, plain_scores, states
from layerwright.kernels.launch import dense_channels


def gated_recurrence_fused(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor, decayed: str
) -> tuple[Tensor, Tensor]:
    """Computes the recurrence in chunks of 64 tokens. Differentiable once.

    Args and returns as in `gated_recurrence_reference`, but the inputs share one dtype (fp32, bf16
    or fp16), the state is in fp32, and y has the dtype of q.
    """
    tensors = (dense_channels(x) for x in (q, k, v, log_decay))
    return _forward(*tensors, state, decayed == "key")


@torch.library.custom_op(operator_name("gated_recurrence"), mutates_args=())
def _forward(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor, on_keys: bool
) -> tuple[Tensor, Tensor]:
    if on_keys:
        states_before, last = states(k, v, g, state)
        return read(decayed_scores(q, k, g), q, v, g, states_before, like=q), last
    states_before, last = states(v, k, g, state.mT)
    out, *_ = decayed_sides(plain_scores(q, k), (None, v, q, None, g), states_before)
    return out, last.mT.contiguous()


@_forward.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor, on_keys: bool
) -> tuple[Tensor, Tensor]:
    return q.new_empty(*q.shape[:3], v.shape[3]), state.new_empty(state.shape)


@torch.library.custom_op(operator_name("gated_recurrence_backward"), mutates_args=())
def _backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    state: Tensor,
    on_keys: bool,
    d_out: Tensor,
    d_last: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    if on_keys:
        x, y, u, z = q, k, d_out, v
    else:
        x, y, u, z = d_out, v, q, k
        state, d_last = state.mT, d_last.mT
    states_before, _ = states(y, z, g, state)
    state_gradients, d_first = states(x, u, g, d_last, reverse=True)
    scores, plain = decayed_scores(x, y, g), plain_scores(u, z)
    d_z = write(scores, y, u, g, state_gradients, like=z)
    operands = x, y, u, z, g
    d_x, d_y, d_g = decayed_sides(plain, operands, states_before, state_gradients, on_keys)
    if on_keys:
        return d_x, d_y, d_z, d_g, d_first
    return read(scores, x, z, g, states_before, like=q), d_z, d_y, d_g, d_first.mT.contiguous()


@_backward.register_fake
def _(*arguments: Any) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in arguments[:5])


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.on_keys = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, d_out: Tensor, d_last: Tensor) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    return *_backward(*tensors, ctx.on_keys, dense_channels(d_out), d_last.contiguous()), None


_forward.register_autograd(_differentiate, setup_context=_save)
