"""Gated linear attention written from its definition; tests compare every faster version with it.

Shapes: B batch, H query heads, G key/value heads, r = H / G, T tokens, d key channels, e value
channels, c = d or e decayed channels.
"""

import torch
from torch import Tensor


def gated_recurrence_reference(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor, decayed: str
) -> tuple[Tensor, Tensor]:
    """S_t = decay(S_{t-1}) + k_tᵀ v_t, y_t = q_t S_t, token by token.

    Args are those of `gated_recurrence`; the computation runs in the dtype of the initial state.

    Returns:
        y (B, H, T, e) and the state after the last token (B, G, d, e), in the dtype of the state.
    """
    q, k, v, log_decay = (x.to(state.dtype) for x in (q, k, v, log_decay))
    q_BGrTd = q.unflatten(1, (k.shape[1], -1))
    outs = []
    for t in range(q.shape[2]):
        decay = log_decay[:, :, t].exp().unsqueeze(-1 if decayed == "key" else -2)
        write = k[:, :, t, :, None] * v[:, :, t, None, :]
        state = decay * state + write
        outs.append(q_BGrTd[:, :, :, t] @ state)
    return torch.stack(outs, dim=3).flatten(1, 2), state
