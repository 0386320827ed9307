"""Negative log-likelihood per token, without a second copy of the logits."""

import torch
from torch import Tensor

_POSITIONS_AT_ONCE = 256  # bounds the fp32 temporaries: 256 x 49,152 x 4 bytes = 50 MB


def token_nll(logits: Tensor, ids: Tensor) -> Tensor:
    """NLL of every token but the first, ``-log softmax(logits[:, t])[ids[:, t + 1]]``.

    From logits (B, T, V) of any float dtype and ids (B, T); (B, T - 1) fp32, in nats.
    """
    return target_nll(logits[:, :-1], ids[:, 1:])


def target_nll(logits: Tensor, targets: Tensor) -> Tensor:
    """NLL of ``targets`` (B, N) under ``logits`` (B, N, V) at the same index: (B, N) fp32 nats."""
    parts = []
    for start in range(0, targets.shape[1], _POSITIONS_AT_ONCE):
        chunk = logits[:, start : start + _POSITIONS_AT_ONCE].float()
        target_ids = targets[:, start : start + _POSITIONS_AT_ONCE, None]
        parts.append(chunk.logsumexp(-1) - chunk.gather(-1, target_ids).squeeze(-1))
    return torch.cat(parts, dim=1)
