"""Liger's decode step: checks the arguments, chooses an implementation and runs it.

Shapes: B batch, H query heads, G key/value heads, d head size.
"""

from typing import Any

import torch
from torch import Tensor

from layerwright.kernels.choice import choose_implementation
from layerwright.kernels.liger_decode.reference import LigerMix, NewToken, liger_decode_reference
from layerwright.kernels.ring import Ring


def _fused(*arguments: Any) -> Tensor:
    from layerwright.kernels.liger_decode.fused import liger_decode_fused

    return liger_decode_fused(*arguments)


IMPLEMENTATIONS = {
    "reference": liger_decode_reference,
    "blockwise": liger_decode_reference,
    "triton": _fused,
}


def liger_decode(token: NewToken, ring: Ring, state_BGdd: Tensor, mix: LigerMix) -> Tensor:
    """o = alpha y + beta attention for one new token per row, without gradients (arXiv 2503.01496).

    S <- G ⊙ S + φ(k)ᵀ v, y = softmax(q) S. With gla, log G = logsigmoid(k + b) / 16 and
    φ = softmax; with hgrn2, G = sigmoid(k + b) and φ(k) = 1 - G. The attention covers the ring's
    sinks and the last `window` positions, the token's own included, with rotated queries and keys.

    Args:
        ring: keys and values of the window; the rotated key, the value and the position of the
            token are written into it in place.
        state_BGdd: contiguous, in fp32 (or fp64); the new state is written into it in place.

    Returns:
        (B, H, 1, d) in the dtype of v.

    Raises:
        ValueError: the gate is unknown, or LAYERWRIGHT_KERNELS is invalid
            (`layerwright.kernels.choice`).
    """
    if mix.gate not in ("gla", "hgrn2"):
        raise ValueError(f"gate must be 'gla' or 'hgrn2', got {mix.gate!r}")
    run = choose_implementation("liger_decode", IMPLEMENTATIONS, token.q, token.q.shape[3])
    with torch.no_grad():
        return run(token, ring, state_BGdd, mix)
