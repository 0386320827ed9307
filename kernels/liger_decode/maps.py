"""What Liger makes of the keys and queries of attention (arXiv 2503.01496): gates and features.

Shapes: B batch, H query heads, G key/value heads, T tokens, d head size, c channels of a gate.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

# roots a gate so that it forgets slowly (GLA, arXiv 2312.06635, section 4.4)
DAMPING = {"gla": 16, "gsa": 16, "hgrn2": 1}


def log_decay(logits_BGTc: Tensor, gate: str, bias_Gc: Tensor | None) -> Tensor:
    """logsigmoid(logits + bias) / damping, in the dtype of the logits."""
    if bias_Gc is not None:
        logits_BGTc = logits_BGTc + bias_Gc[:, None].to(logits_BGTc.dtype)
    return F.logsigmoid(logits_BGTc) / DAMPING[gate]


def written(log_decay_BGTc: Tensor) -> Tensor:
    """1 - decay, exact where the decay is near 1."""
    return -torch.expm1(log_decay_BGTc)


def features(q_BHTd: Tensor, k_BGTd: Tensor, log_decay_BGTd: Tensor, gate: str):
    """Queries and keys of the gates gla and hgrn2 as the recurrence takes them."""
    return q_BHTd.softmax(-1), k_BGTd.softmax(-1) if gate == "gla" else written(log_decay_BGTd)
