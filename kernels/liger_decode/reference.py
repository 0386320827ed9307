"""Liger's gates and features (arXiv 2503.01496), and its decode step from separate operators.

Shapes: B batch, H query heads, G key/value heads, T tokens, d head size, c channels of a gate, R is
B or 1.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from layerwright.kernels.gated_recurrence import gated_recurrence_step
from layerwright.kernels.ring import Ring
from layerwright.kernels.streaming_attention import streaming_attention

# divides the log decay, so that the state decays slowly (GLA, arXiv 2312.06635, section 4.4)
DAMPING = {"gla": 16, "gsa": 16, "hgrn2": 1}


def log_decay(logits_BGTc: Tensor, gate: str, bias_Gc: Tensor | None) -> Tensor:
    """logsigmoid(logits + bias) / damping, in the dtype of the logits."""
    if bias_Gc is not None:
        logits_BGTc = logits_BGTc + bias_Gc[:, None].to(logits_BGTc.dtype)
    return F.logsigmoid(logits_BGTc) / DAMPING[gate]


def input_gate(log_decay_BGTc: Tensor) -> Tensor:
    """1 - decay, the share of the new token; exact where the decay is near 1."""
    return -torch.expm1(log_decay_BGTc)


def features(
    q_BHTd: Tensor, k_BGTd: Tensor, log_decay_BGTd: Tensor, gate: str
) -> tuple[Tensor, Tensor]:
    """Features of queries and keys for the recurrence, with the gates gla and hgrn2."""
    return q_BHTd.softmax(-1), k_BGTd.softmax(-1) if gate == "gla" else input_gate(log_decay_BGTd)


class NewToken(NamedTuple):
    """One new token per row.

    Attributes:
        q: (B, H, 1, d) before the rotation; H / G query heads share a key head and a state.
        k, v: (B, G, 1, d) before the rotation.
        rotated_q, rotated_k: q and k after the rotation.
        positions: (R, 1), the token's position, int64, >= 0.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    rotated_q: Tensor
    rotated_k: Tensor
    positions: Tensor


class LigerMix(NamedTuple):
    """How a layer gates its state and mixes recurrence and window.

    Attributes:
        gate: "gla" or "hgrn2".
        bias: (G, d), the decay bias b; None for zero.
        shares: (2, H), alpha and beta of each query head.
        window: >= 1; at most the slots of the ring that are not sinks.
    """

    gate: str
    bias: Tensor | None
    shares: Tensor
    window: int


def liger_decode_reference(
    token: NewToken, ring: Ring, state_BGdd: Tensor, mix: LigerMix
) -> Tensor:
    """The step as separate operators. Args and returns are those of `liger_decode`."""
    ring.write(token.rotated_k, token.v, token.positions)
    positions = token.positions, ring.positions
    window_BH1d = streaming_attention(
        token.rotated_q, ring.keys, ring.values, *positions, ring.sinks, mix.window
    )
    q, k, v = (x.to(state_BGdd.dtype) for x in token[:3])
    decay = log_decay(k, mix.gate, mix.bias)
    memory_BH1d = gated_recurrence_step(*features(q, k, decay, mix.gate), v, decay, state_BGdd)
    alpha, beta = mix.shares.to(memory_BH1d.dtype)[..., None, None]
    dtype = torch.promote_types(token.v.dtype, torch.float32)
    return (alpha * memory_BH1d + beta * window_BH1d.to(dtype)).to(token.v.dtype)
