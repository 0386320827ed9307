"""One token of the gated recurrence, the state updated where it lies.

Shapes: B batch, H query heads, G key/value heads, d key channels, e value channels, c = d or e
decayed channels.
"""

import torch
from torch import Tensor

from layerwright.kernels.choice import chosen


def gated_recurrence_step_torch(
    q_BH1d: Tensor,
    k_BG1d: Tensor,
    v_BG1e: Tensor,
    log_decay_BG1c: Tensor,
    state_BGde: Tensor,
    decayed: str,
) -> Tensor:
    """The step in torch. Args and returns are those of `gated_recurrence_step`."""
    q, k, v, log_decay = (x.to(state_BGde.dtype) for x in (q_BH1d, k_BG1d, v_BG1e, log_decay_BG1c))
    decay = log_decay.exp()
    state_BGde.mul_(decay.mT if decayed == "key" else decay).addcmul_(k.mT, v)
    q_BGrd = q[:, :, 0].unflatten(1, (k.shape[1], -1))
    return (q_BGrd @ state_BGde).flatten(1, 2)[:, :, None].to(q_BH1d.dtype)


def _fused(*arguments):
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
    """`gated_recurrence` of a single token, without gradients; `state_BGde` becomes the new state.

    Args are those of `gated_recurrence`, with T = 1 and a contiguous state in fp32 (fp64).

    Returns:
        (B, H, 1, e) in the dtype of q.

    Raises:
        ValueError: an implementation in LAYERWRIGHT_KERNELS that is unknown or cannot run here.
    """
    tensors = q_BH1d, k_BG1d, v_BG1e, log_decay_BG1c
    if mask_B1 is not None:
        tensors = (x.masked_fill(~mask_B1[:, None, :, None], 0) for x in tensors)
    channels = max(q_BH1d.shape[3], v_BG1e.shape[3])
    run = chosen("gated_recurrence_step", IMPLEMENTATIONS, q_BH1d, channels)
    with torch.no_grad(), torch.autocast(q_BH1d.device.type, enabled=False):
        return run(*tensors, state_BGde, decayed)
