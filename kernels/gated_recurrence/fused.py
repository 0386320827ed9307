"""Gated recurrence by Triton as torch operators: fake results, gradients, torch.compile.

Shapes: B batch, H query heads, G key/value heads, T tokens, d key channels, e value channels,
c = d or e decayed channels.
"""

import torch
from torch import Tensor

from layerwright.kernels.gated_recurrence.triton_products import (
    decayed_gradients,
    decayed_result,
    read,
    write,
)
from layerwright.kernels.gated_recurrence.triton_scores import decayed_scores, plain_scores
from layerwright.kernels.gated_recurrence.triton_states import states
from layerwright.kernels.launch import rows
from layerwright.kernels.operators import operator_name


def gated_recurrence_fused(
    q_BHTd: Tensor,
    k_BGTd: Tensor,
    v_BGTe: Tensor,
    log_decay_BGTc: Tensor,
    state_BGde: Tensor,
    decayed: str,
) -> tuple[Tensor, Tensor]:
    """The recurrence in chunks of 64 tokens on matrix units. Differentiable, twice not.

    Args and returns are those of `gated_recurrence_reference`, for inputs of one dtype (fp32, bf16
    or fp16) and a state in fp32; y comes in the dtype of q.
    """
    tensors = (rows(x) for x in (q_BHTd, k_BGTd, v_BGTe, log_decay_BGTc))
    return _forward(*tensors, state_BGde, decayed == "key")


@torch.library.custom_op(operator_name("gated_recurrence"), mutates_args=())
def _forward(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor, on_keys: bool
) -> tuple[Tensor, Tensor]:
    if on_keys:
        before, last = states(k, v, g, state)
        return read(decayed_scores(q, k, g), q, v, g, before, like=q), last
    before, last = states(v, k, g, state.mT)
    return decayed_result(plain_scores(q, k), v, q, g, before), last.mT.contiguous()


@_forward.register_fake
def _(q, k, v, g, state, on_keys):
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
    before, _ = states(y, z, g, state)
    later, d_first = states(x, u, g, d_last, reverse=True)
    scores, plain = decayed_scores(x, y, g), plain_scores(u, z)
    d_z = write(scores, y, u, g, later, like=z)
    d_x, d_y, d_g = decayed_gradients(plain, x, y, u, z, g, before, later, give_x=on_keys)
    if on_keys:
        return d_x, d_y, d_z, d_g, d_first
    return read(scores, x, z, g, before, like=q), d_z, d_y, d_g, d_first.mT.contiguous()


@_backward.register_fake
def _(q, k, v, g, state, on_keys, d_out, d_last):
    return tuple(x.new_empty(x.shape) for x in (q, k, v, g, state))


def _save(ctx, inputs, output) -> None:
    *tensors, ctx.on_keys = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx, d_out, d_last):
    tensors = ctx.saved_tensors
    return *_backward(*tensors, ctx.on_keys, rows(d_out), d_last.contiguous()), None


_forward.register_autograd(_differentiate, setup_context=_save)
