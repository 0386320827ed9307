"""Gated linear attention for one new token, with the state updated in place.

Shapes: B batch, H query heads, G key/value heads, d key channels, e value channels, c = d or e
decayed channels.
"""

from typing import Any

import torch
from torch import Tensor

from layerwright.kernels.choice import choose_implementation


def gated_recurrence_step_torch(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor, decayed: str
) -> Tensor:
    """The step in torch. Args and returns are those of `gated_recurrence_step`; no mask."""
    dtype = q.dtype
    q, k, v, log_decay = (x.to(state.dtype) for x in (q, k, v, log_decay))
    decay = log_decay.exp()
    state.mul_(decay.mT if decayed == "key" else decay).addcmul_(k.mT, v)
    q_BGrd = q[:, :, 0].unflatten(1, (k.shape[1], -1))
    return (q_BGrd @ state).flatten(1, 2)[:, :, None].to(dtype)


def _fused(*arguments: Any) -> Tensor:
    from layerwright.kernels.gated_recurrence.triton_step import gated_recurrence_step_fused

    return gated_recurrence_step_fused(*arguments)


IMPLEMENTATIONS = {
    "reference": gated_recurrence_step_torch,
    "blockwise": gated_recurrence_step_torch,
    "triton": _fused,
}


def gated_recurrence_step(
    q_BH1d: Tensor,
    k_BG1d: Tensor,
    v_BG1e: Tensor,
    log_decay_BG1c: Tensor,
    state_BGde: Tensor,
    *,
    decayed: str = "key",
    mask_B1: Tensor | None = None,
) -> Tensor:
    """`gated_recurrence` of one token, without gradients; updates `state_BGde` in place.

    Args are those of `gated_recurrence` with T = 1. The state is contiguous, in fp32 (or fp64).

    Returns:
        y (B, H, 1, e) in the dtype of q.

    Raises:
        ValueError: LAYERWRIGHT_KERNELS is invalid (`layerwright.kernels.choice`).
    """
    tensors = [q_BH1d, k_BG1d, v_BG1e, log_decay_BG1c]
    if mask_B1 is not None:
        tensors = [x.masked_fill(~mask_B1[:, None, :, None], 0) for x in tensors]
    channels = max(q_BH1d.shape[3], v_BG1e.shape[3])
    run = choose_implementation("gated_recurrence_step", IMPLEMENTATIONS, q_BH1d, channels)
    with torch.no_grad(), torch.autocast(q_BH1d.device.type, enabled=False):
        return run(*tensors, state_BGde, decayed)
