"""Window attention: a sliding window of W, and a learned sink logit for each query head.

The logit stands for the first tokens, whose attention a window would otherwise lose: gpt-oss (arXiv
2508.10925), GraniteSWA. Stock engines have this form; `streaming` keeps the tokens themselves.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from layerwright.tasks.hybrid.mixers.streaming import StreamingAttention


class WindowAttention(StreamingAttention):
    """o = sum_j exp(s_j - lse) v_j over the last W keys, lse = log(exp(a) + sum_j exp(s_j)).

    a is the head's sink logit: a key that every query sees, whose value is zero.

    Spec: {"kind": "window", "window": W >= 1}; W counts the query too.

    Attributes:
        sinks: (H,) the sink logits, under the name that GraniteSWA gives them.
    """

    kind = "window"
    least: ClassVar = {"window": 1}

    def __init__(
        self, config: Any, spec: dict[str, Any], layer_idx: int, donor: Any = None
    ) -> None:
        super().__init__(config, spec, layer_idx, donor)
        donated = getattr(donor, "sinks", None)
        zeros = torch.zeros(config.num_attention_heads)
        self.sinks = nn.Parameter(zeros) if donated is None else donated

    def sink_logits(self) -> Tensor:
        return self.sinks
