"""The gates and features that Liger derives from attention's queries and keys (arXiv 2503.01496).

Shapes: B batch, H query heads, G key/value heads, T tokens, d head size, c channels of a gate.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

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
