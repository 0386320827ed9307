"""Choice of the implementation of Liger's decode step.

Shapes: B batch, H query heads, G key/value heads, d head size, R is B or 1.
"""

import torch
from torch import Tensor

from layerwright.kernels.choice import chosen
from layerwright.kernels.liger_decode.reference import liger_decode_reference
from layerwright.kernels.ring import Ring


def _fused(*arguments):
    from layerwright.kernels.liger_decode.fused import liger_decode_fused

    return liger_decode_fused(*arguments)


IMPLEMENTATIONS = {
    "reference": liger_decode_reference,
    "blockwise": liger_decode_reference,
    "triton": _fused,
}


def liger_decode(
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
    """o = alpha y + beta attention of one new token a row (Liger, arXiv 2503.01496), no gradients.

    S <- G ⊙ S + φ(k)ᵀ v, y = softmax(q) S; gla: log G = logsigmoid(k + b) / 16, φ = softmax;
    hgrn2: G = sigmoid(k + b), φ(k) = 1 - G. The attention is over the ring's sinks and the last
    `window` positions, the token's own included, with rotated queries and keys.

    Args:
        q_BH1d, k_BG1d, v_BG1d: before the rotation; H / G heads share a key head and a state.
        rotated_q_BH1d, rotated_k_BG1d: after it.
        ring: takes the token's rotated key, its value and its position, in place.
        positions_R1: the token's position, int64, >= 0.
        state_BGdd: contiguous, in fp32 (fp64); becomes the new state in place.
        gate: "gla" or "hgrn2".
        bias_Gd: b, None for zero.
        shares_2H: alpha and beta of each query head.
        window: >= 1, at most what the ring holds beside its sinks.

    Returns:
        (B, H, 1, d) in the dtype of v.

    Raises:
        ValueError: another gate, or an implementation in LAYERWRIGHT_KERNELS that is unknown or
            cannot run here.
    """
    if gate not in ("gla", "hgrn2"):
        raise ValueError(f"gate must be 'gla' or 'hgrn2', got {gate!r}")
    run = chosen("liger_decode", IMPLEMENTATIONS, q_BH1d, q_BH1d.shape[3])
    with torch.no_grad():
        return run(
            *(q_BH1d, k_BG1d, v_BG1d, rotated_q_BH1d, rotated_k_BG1d, ring, positions_R1),
            *(state_BGdd, gate, bias_Gd, shares_2H, window),
        )
