"""Gated linear attention in torch, in blocks of tokens: matrix products without a T × T matrix.

Shapes: B batch, H query heads, G key/value heads, r = H / G, T tokens, N segments of P tokens, d
key channels, e value channels, c = d or e decayed channels.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor


def gated_recurrence_chunked(
    q_BHTd: Tensor,
    k_BGTd: Tensor,
    v_BGTe: Tensor,
    log_decay_BGTc: Tensor,
    state_BGde: Tensor,
    decayed: str,
    block: int = 64,
    span: int = 1024,
) -> tuple[Tensor, Tensor]:
    """Computes the recurrence block by block and updates the state once per block.

    Differentiable. No exponent is positive and no sum of log decays is subtracted from another
    (README.md). Other args and the returns are those of `gated_recurrence_reference`.

    Args:
        block: tokens between two states, a power of two.
        span: tokens whose intermediate tensors are in memory at a time, a multiple of `block`.
    """
    tokens, groups = q_BHTd.shape[2], k_BGTd.shape[1]
    block = min(block, 1 << (tokens - 1).bit_length())
    # Tokens before heads: the queries of all r heads in a segment become the rows of one product.
    q_BGTrd = q_BHTd.unflatten(1, (groups, -1)).transpose(2, 3)
    outs = []
    for start in range(0, tokens, span):
        q, k, v, log_decay = (
            x[:, :, start : start + span].to(state_BGde.dtype)
            for x in (q_BGTrd, k_BGTd, v_BGTe, log_decay_BGTc)
        )
        out_BGTre, state_BGde = _span(q, k, v, log_decay, state_BGde, decayed == "key", block)
        outs.append(out_BGTre)
    return torch.cat(outs, dim=2).transpose(2, 3).flatten(1, 2), state_BGde


def _span(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor, on_keys: bool, block: int
) -> tuple[Tensor, Tensor]:
    """Runs some tokens from an initial state: y (B, G, T, r, e) and the state after them."""
    tokens, r = q.shape[2:4]
    padding = -tokens % block
    if padding:  # zeros neither write to the state nor decay it
        q = F.pad(q, (0, 0, 0, 0, 0, padding))
        k, v, log_decay = (F.pad(x, (0, 0, 0, padding)) for x in (k, v, log_decay))

    def written(k_BGNPd: Tensor, v_BGNPe: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values, decayed to the end of their segment."""
        if on_keys:
            return k_BGNPd * after.exp(), v_BGNPe
        return k_BGNPd, v_BGNPe * after.exp()

    def read(q_BGNPrd: Tensor, upto: Tensor, *memory: Tensor) -> Tensor:
        """Outputs of queries (B, G, N, P, r, d) over a state, or the last segment's k and v."""
        decay = upto.exp().unsqueeze(-2)
        rows = (q_BGNPrd * decay if on_keys else q_BGNPrd).flatten(3, 4)
        for matrix in memory:
            rows = rows @ matrix
        out = rows.unflatten(3, (-1, r))
        return out if on_keys else out * decay

    # For each token, in segments of `size` tokens: `upto` is the log decay from the segment's start
    # through the token, `after` the log decay from the next token through the segment's end, and
    # `out` the output over the token's own segment.
    upto, after = log_decay.clone(), torch.zeros_like(log_decay)
    out = (q * k.unsqueeze(-2)).sum(-1, keepdim=True) * v.unsqueeze(-2)
    size = 1
    while size < block:
        early, late = (partial(_half, size=size, odd=odd) for odd in (0, 1))
        keys, values = written(early(k), early(v), early(after))
        late(out).add_(read(late(q), late(upto), keys.transpose(-1, -2), values))
        early(after).add_(late(upto)[..., -1:, :])
        late(upto).add_(early(upto)[..., -1:, :])
        size *= 2

    q, k, v, upto, after = (x.unflatten(2, (-1, block)) for x in (q, k, v, upto, after))
    keys, values = written(k, v, after)
    writes_BGNde = keys.transpose(-1, -2) @ values
    kept = upto[..., -1, :].exp().unsqueeze(-1 if on_keys else -2)
    states = []
    for n in range(writes_BGNde.shape[2]):
        states.append(state)
        state = torch.addcmul(writes_BGNde[:, :, n], kept[:, :, n], state)
    out = out + read(q, upto, torch.stack(states, dim=2)).flatten(2, 3)
    return out[:, :, :tokens], state


def _half(x: Tensor, size: int, odd: int) -> Tensor:
    """A view (B, G, N, P, ...) of the even or odd segments of `size` tokens of (B, G, T, ...)."""
    return x.unflatten(2, (-1, 2, size))[:, :, :, odd]
