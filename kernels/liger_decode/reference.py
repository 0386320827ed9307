"""Liger's decode step from the two operators that it joins.

Shapes: B batch, H query heads, G key/value heads, d head size, R is B or 1.
"""

import torch
from torch import Tensor

from layerwright.kernels.gated_recurrence import gated_recurrence_step
from layerwright.kernels.liger_decode.maps import features, log_decay
from layerwright.kernels.ring import Ring
from layerwright.kernels.streaming_attention import streaming_attention


def liger_decode_reference(
    q_BH1d: Tensor,
    k_BG1d: Tensor,
    v_BG1d: Tensor,
    rotated_q_BH1d: Tensor,
    rotated_k_BG1d: Tensor,
    ring: Ring,
    positions_R1: Tensor,
    state_BGdd: Tensor,
    gate: str,
    bias_Gd: Tensor | None,
    shares_2H: Tensor,
    window: int,
) -> Tensor:
    """The step operator by operator. Args and returns are those of `liger_decode`."""
    ring.write(rotated_k_BG1d, v_BG1d, positions_R1)
    places = positions_R1, ring.positions, ring.sinks, window
    near = streaming_attention(rotated_q_BH1d, ring.keys, ring.values, *places)
    q, k, v = (x.to(state_BGdd.dtype) for x in (q_BH1d, k_BG1d, v_BG1d))
    decay = log_decay(k, gate, bias_Gd)
    far = gated_recurrence_step(*features(q, k, decay, gate), v, decay, state_BGdd)
    alpha, beta = shares_2H.to(far.dtype)[..., None, None]
    dtype = torch.promote_types(v_BG1d.dtype, torch.float32)
    return (alpha * far + beta * near.to(dtype)).to(v_BG1d.dtype)
