"""One block of the hybrid model, built from its layer spec.

Shapes: B batch, T new tokens, D hidden size.
"""

from typing import Any

from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm

from layerwright.tasks.hybrid.mixers import MIXERS
from layerwright.tasks.hybrid.placement import Placement


class HybridLayer(GradientCheckpointingLayer):
    """A pre-norm block: x + mixer(norm(x)), then x + feed_forward(norm(x)).

    A part of kind "none" is absent, with its norm. The feed-forward kind "linear" is x + W x + b
    without a norm; it replaces what a block, or a run of blocks, added to the residual stream.

    Args:
        donor: a layer whose modules this layer shares, if both have them. Other modules are new.
    """

    def __init__(self, config: Any, layer_idx: int, donor: "HybridLayer | None" = None):
        super().__init__()
        self.spec = config.layer_specs[layer_idx]
        mixer, feed_forward = self.spec["mixer"]["kind"], self.spec["feed_forward"]["kind"]

        def norm() -> LlamaRMSNorm:
            return LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)

        def shared(part: str) -> Any:
            return getattr(donor, part, None)

        # Any: a spec may leave each part out
        self.self_attn: Any = None
        self.input_layernorm: Any = None
        if mixer != "none":
            attn = shared("self_attn")
            self.self_attn = MIXERS[mixer](config, self.spec["mixer"], layer_idx, attn)
            self.input_layernorm = shared("input_layernorm") or norm()
        self.mlp: Any = None
        self.post_attention_layernorm: Any = None
        self.linear: Any = None
        if feed_forward == "mlp":
            self.mlp = shared("mlp") or LlamaMLP(config)
            self.post_attention_layernorm = shared("post_attention_layernorm") or norm()
        elif feed_forward == "linear":
            self.linear = shared("linear") or nn.Linear(config.hidden_size, config.hidden_size)
        if donor is not None:
            self.train(donor.training)

    def mixed(self, hidden_BTD: Tensor, placement: Placement) -> Tensor:
        """The mixer's addition to the residual stream, (B, T, D), without a cache."""
        return self.self_attn(self.input_layernorm(hidden_BTD), placement)

    def forward(
        self, hidden_BTD: Tensor, placement: Placement, past_key_values: Any = None
    ) -> Tensor:
        """Output of the block, (B, T, D); `past_key_values` is a HybridCache or None."""
        if self.self_attn is not None:
            normed = self.input_layernorm(hidden_BTD)
            hidden_BTD = hidden_BTD + self.self_attn(normed, placement, past_key_values)
        if self.mlp is not None:
            return hidden_BTD + self.mlp(self.post_attention_layernorm(hidden_BTD))
        if self.linear is not None:
            return hidden_BTD + self.linear(hidden_BTD)
        return hidden_BTD
