"""Attention entropy, attention distance and sink mass.

Shapes: B rows in the batch, H query heads, G key/value heads, Q queries, T keys, d head size.
"""

import torch
from pydantic import Field
from torch import Tensor

from layerwright.kernels.streaming_attention.reference import visible_keys
from layerwright.tasks.errors import InputError
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.passes.blocks import Visit
from layerwright.tasks.profile.base import BlockProfiler, MeansByHead

SCORES = ("attention_entropy", "attention_distance", "sink_mass")


class AttentionSpan(BlockProfiler):
    """Entropy and mean distance of attention, and the share of attention on the sinks.

    A(q, k) is the softmax over all k <= q, or over the keys in the base's own window. Each score is
    a mean over rows, query heads and the last ``last_queries`` queries q of each row:

    - ``attention_entropy``: - sum over k of A ln A, in nats; at most ln of the number of keys.
    - ``attention_distance``: sum over k >= sinks of A (q - k) / sum over k >= sinks of A, in
      tokens. It excludes the first ``sinks`` tokens, which attract attention at any distance
      (arXiv 2309.17453).
    - ``sink_mass``: sum over k < sinks of A, a share.

    Every score exists for the layer, and, as ``attention_entropy.head_0`` and so on, for the query
    heads of each key/value head. Entropy as in arXiv 1906.04341, section 3.3; distance as in arXiv
    2010.11929, section 4.5, but in tokens. Only ``last_queries`` x T scores are in memory at a
    time, never T x T.
    """

    name = "attention_span"
    sinks: int = Field(default=4, ge=0)
    last_queries: int = Field(default=32, ge=1)

    def begin(self, model: HybridForCausalLM, rows: Tensor) -> MeansByHead:
        if rows.shape[1] < self.sinks + self.last_queries:
            raise InputError(
                f"attention_span: rows of {rows.shape[1]} tokens are too short: some of the last "
                f"{self.last_queries} queries see only the {self.sinks} sinks",
                where="profile.row_tokens",
                expected=f"at least {self.sinks + self.last_queries} tokens a row",
                remedy="lengthen the rows, or give attention_span fewer last_queries",
            )

        def scores(visit: Visit) -> Tensor:
            # set if the base's own layer has a sliding window
            window = visit.block.spec["mixer"].get("window")
            q = visit.last_queries(self.last_queries)
            return attention_spread(q, visit.keys, self.sinks, window)

        return MeansByHead(SCORES, scores)


def attention_spread(
    q_BHQd: Tensor, k_BGTd: Tensor, sinks: int, window: int | None = None
) -> Tensor:
    """Compute entropy, mean distance without sinks, and sink mass of the last Q queries.

    Args:
        q_BHQd: rotated queries of the last Q of T positions; H / G heads share a key head.
        k_BGTd: rotated keys of all T positions; the first query's position is at least ``sinks``.
        window: number of keys that a query attends to, its own included; None: all.

    Returns:
        (3, B, H, Q) in fp32 (fp64 for fp64 inputs): entropy, distance, sink mass.
    """
    B, H, Q, d = q_BHQd.shape
    G, T = k_BGTd.shape[1:3]
    dtype = torch.promote_types(q_BHQd.dtype, torch.float32)
    grouped = q_BHQd.to(dtype).reshape(B, G, H // G * Q, d)  # the group's heads become rows
    scores = (grouped @ k_BGTd.to(dtype).mT * d**-0.5).view(B, H, Q, T)
    keys = torch.arange(T, device=q_BHQd.device)
    queries = keys[T - Q :]
    unseen = ~visible_keys(queries[None], keys[None], 0, window or T)  # [1, Q, T]
    # the log share of an unseen key is -inf; its entropy term 0 * -inf would be NaN
    log_shares = scores.masked_fill_(unseen, -torch.inf).log_softmax(-1)
    shares = log_shares.exp()
    entropy = -(shares * log_shares.masked_fill(unseen, 0)).sum(-1)
    beyond_sinks = log_shares[..., sinks:].softmax(-1)
    # distances count from the last position, so that the heaviest, nearest keys have small numbers
    from_last = (T - 1 - keys).to(dtype)
    distance = beyond_sinks @ from_last[sinks:] - from_last[T - Q :]
    return torch.stack([entropy, distance, shares[..., :sinks].sum(-1)])
