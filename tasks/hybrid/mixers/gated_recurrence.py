"""Gated linear attention plus a sliding window, from attention's weights (Liger, arXiv 2503.01496).

Shapes: B batch, T new tokens, H query heads, G key/value heads, d head size, m slots, c channels of
a gate (d, or m for slots).
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from layerwright.kernels.gated_recurrence import gated_recurrence, gated_recurrence_step
from layerwright.kernels.liger_decode import LigerMix, NewToken, liger_decode
from layerwright.kernels.liger_decode.reference import features, input_gate, log_decay
from layerwright.tasks.hybrid.mixers.attention import CacheSize, check_whole
from layerwright.tasks.hybrid.mixers.fixed_cache import FixedRecurrentLayer
from layerwright.tasks.hybrid.mixers.streaming import StreamingAttention, StreamingCacheLayer
from layerwright.tasks.hybrid.placement import Placement

GATES = ("gla", "gsa", "hgrn2")
LEARNED_MIXES = ("layer", "head")
STATE_BYTES = 4  # fp32


class RecurrentCacheLayer(StreamingCacheLayer):
    """A sliding window and the state after the last token; its size does not depend on the context.

    The mixer sets the states. A token cannot be removed from a state.

    Attributes:
        state: (B, G, keys or slots, values) in fp32; None before the first token.
        slot_keys: (B, G, d, slots) in fp32, the second state of gated slot attention; else None.
    """

    by_row = (*StreamingCacheLayer.by_row, "state", "slot_keys")
    state: Tensor | None = None
    slot_keys: Tensor | None = None


class GatedRecurrence(StreamingAttention):
    """o = alpha y + beta attention(q, k, v) over sinks and window, then the layer's own o_proj.

    y is read from a state that has seen every token. The recurrence uses queries and keys before
    the rotation, the window uses them after it. Each key/value head has one state in fp32, which
    all query heads of its group read. With the decay bias b (zero unless the spec enables it):

        gla    S_t = G_t ⊙ S_{t-1} + softmax(k_t)ᵀ v_t   log G = logsigmoid(k + b) / 16
               y_t = softmax(q_t) S_t
        hgrn2  S_t = G_t ⊙ S_{t-1} + (1 - G_t)ᵀ v_t      G = sigmoid(k + b)
               y_t = softmax(q_t) S_t
        gsa    K_t = g_t ⊙ K_{t-1} + (1 - g_t)ᵀ k_t      log g = logsigmoid(pool_m(k) + b) / 16
               V_t = g_t ⊙ V_{t-1} + (1 - g_t)ᵀ v_t
               y_t = softmax(q_t K_tᵀ) V_t

    The softmax of q and k runs over the head dimension, the softmax of gsa over the m slots. There
    is no denominator and no scale 1 / sqrt(d), as in Liger's published code
    (gsa: arXiv 2409.07146, section 3). pool_m averages neighbouring channels of a head into m
    (adaptive average pooling).

    Spec: {"kind": "gated_recurrence", "gate": "gla", "hgrn2" or "gsa", "window": W >= 1 (the
    query's own position included), "sinks": S >= 0 (0 in the paper), "alpha", "beta": the shares
    (0.5 each in the paper), "decay_bias": whether there is a bias b (G, c), "slots": m >= 1
    (gsa only)}. With "learned_mix": "layer" or "head" the shares are a parameter `mix`: alpha and
    beta for the whole layer (2, 1) or for each query head (2, H), initialised from the spec.

    Attributes:
        shown: factor on each branch's output, 1.0 or (B, 1, 1, 1). It is 1.0 except in training
            with window dropout and in ablations.
    """

    kind = "gated_recurrence"
    stateful = True

    def __init__(self, config: Any, spec: dict[str, Any], layer_idx: int, donor: Any = None):
        super().__init__(config, spec, layer_idx, donor)

        def shared_or_new(name: str, initial: Tensor) -> nn.Parameter:
            donated: Any = getattr(donor, name, None)
            same = donated is not None and donated.shape == initial.shape
            return donated if same else nn.Parameter(initial)

        self.decay_bias: nn.Parameter | None = None
        if spec["decay_bias"]:
            channels = spec.get("slots", config.head_dim)
            initial = torch.zeros(config.num_key_value_heads, channels)
            self.decay_bias = shared_or_new("decay_bias", initial)
        self.mix: nn.Parameter | None = None
        if kind := spec.get("learned_mix"):
            heads = config.num_attention_heads if kind == "head" else 1
            self.mix = shared_or_new("mix", self.initial_mix(spec, heads))
        self.shown: dict[str, float | Tensor] = {"recurrence": 1.0, "window": 1.0}

    @staticmethod
    def initial_mix(spec: dict[str, Any], heads: int) -> Tensor:
        """The spec's shares in the shape of `mix`, (2, heads)."""
        return torch.tensor([[spec["alpha"]], [spec["beta"]]]).repeat(1, heads)

    def forward(self, hidden_BTD: Tensor, placement: Placement, cache: Any = None) -> Tensor:
        q, k, v = self.heads(hidden_BTD)
        rotated_q, rotated_k = apply_rotary_pos_emb(q, k, *placement.rotary)
        layer = None if cache is None else cache.layers[self.layer_idx]
        if isinstance(layer, FixedRecurrentLayer) and self.spec["gate"] != "gsa":
            token = NewToken(q, k, v, rotated_q, rotated_k, placement.positions)
            return self.output(self.decode(token, layer))
        window_BHTd = self.attend(rotated_q, rotated_k, v, placement, cache)
        mask_BT = None if placement.contiguous else placement.positions >= 0
        memory_BHTd = self.recur(q, k, v, mask_BT, layer)
        alpha, beta = self.spec["alpha"], self.spec["beta"]
        if self.mix is not None:
            alpha, beta = self.mix.to(memory_BHTd.dtype)[..., None, None]
        alpha, beta = alpha * self.shown["recurrence"], beta * self.shown["window"]
        return self.output((alpha * memory_BHTd + beta * window_BHTd).to(v.dtype))

    def decode(self, token: NewToken, layer: FixedRecurrentLayer) -> Tensor:
        """Output (B, H, 1, d) of one new token per row, by one operator."""
        if layer.shares is None:  # only once: a CUDA graph cannot copy from the host
            shares = self.initial_mix(self.spec, 1) if self.mix is None else self.mix.detach()
            shares = shares.to(layer.state.device, layer.state.dtype)
            layer.shares = shares.expand(2, token.q.shape[1]).contiguous()
        mix = LigerMix(self.spec["gate"], self.decay_bias, layer.shares, self.spec["window"])
        return liger_decode(token, layer.ring, layer.state, mix)

    def recur(
        self,
        q_BHTd: Tensor,
        k_BGTd: Tensor,
        v_BGTd: Tensor,
        mask_BT: Tensor | None = None,
        layer: RecurrentCacheLayer | None = None,
    ) -> Tensor:
        """y (B, H, T, d) in fp32, from queries and keys before the rotation; updates the states.

        `mask_BT` is False for padding. Without a cache layer the states start from zero.
        """
        dtype = torch.promote_types(k_BGTd.dtype, torch.float32)
        q, k, v = (x.to(dtype) for x in (q_BHTd, k_BGTd, v_BGTd))
        log_decay_BGTc = self.log_decay(k)

        def run(q: Tensor, k: Tensor, v: Tensor, state: str, decayed: str = "key") -> Tensor:
            before: Any = None if layer is None else getattr(layer, state)
            inputs = q, k, v, log_decay_BGTc, before
            if before is not None and q.shape[2] == 1 and _may_update_in_place(before):
                return gated_recurrence_step(*inputs, decayed=decayed, mask_B1=mask_BT)
            out, state_after = gated_recurrence(
                *inputs, decayed=decayed, mask_BT=mask_BT, return_state=True
            )
            if layer is not None:
                setattr(layer, state, state_after)
            return out

        gate = self.spec["gate"]
        if gate != "gsa":
            return run(*features(q, k, log_decay_BGTc, gate), v, "state")
        input_gate_BGTc = input_gate(log_decay_BGTc)
        scores_BHTm = run(q, k, input_gate_BGTc, "slot_keys", decayed="value")
        return run(scores_BHTm.softmax(-1), input_gate_BGTc, v, "state")

    def log_decay(self, k_BGTd: Tensor) -> Tensor:
        """Log of the gate (B, G, T, c), from keys before the rotation."""
        logits_BGTc = k_BGTd
        if self.spec["gate"] == "gsa":  # adaptive_avg_pool1d takes at most two batch dimensions
            pooled = F.adaptive_avg_pool1d(k_BGTd.flatten(0, 1), self.spec["slots"])
            logits_BGTc = pooled.unflatten(0, k_BGTd.shape[:2])
        return log_decay(logits_BGTc, self.spec["gate"], self.decay_bias)

    @classmethod
    def check_parameters(cls, parameters: dict[str, Any]) -> None:
        names = {"gate", "window", "sinks", "alpha", "beta", "decay_bias"}
        gate, mix = parameters.get("gate"), parameters.get("learned_mix", "layer")
        if gate not in GATES:
            raise ValueError(f"gate must be one of {list(GATES)}, got {gate!r}")
        if mix not in LEARNED_MIXES:
            raise ValueError(
                f"learned_mix must be one of {list(LEARNED_MIXES)}, or be left out, got {mix!r}"
            )
        names |= {"learned_mix"} & set(parameters) | ({"slots"} if gate == "gsa" else set())
        if set(parameters) != names:
            raise ValueError(
                f"gate {gate!r} takes the parameters {sorted(names)}, got {sorted(parameters)}"
            )
        super().check_parameters({name: parameters[name] for name in ("sinks", "window")})
        for name in ("alpha", "beta"):
            value = parameters[name]
            if type(value) not in (int, float) or not math.isfinite(value):
                raise ValueError(f"{name} must be a finite number, got {value!r}")
        if not isinstance(parameters["decay_bias"], bool):
            raise ValueError(f"decay_bias must be true or false, got {parameters['decay_bias']!r}")
        check_whole(1, slots=parameters.get("slots", 1))

    @classmethod
    def cache_layer(cls, spec: dict[str, Any]) -> RecurrentCacheLayer:
        return RecurrentCacheLayer(spec["sinks"], spec["window"])

    @classmethod
    def kv_bytes(cls, config: Any, spec: dict[str, Any], size: CacheSize) -> int:
        window = super().kv_bytes(config, spec, size)
        if not size.context_tokens:
            return window
        d = config.head_dim
        numbers = 2 * d * spec["slots"] if spec["gate"] == "gsa" else d * d
        state_bytes = max(STATE_BYTES, size.element_bytes)  # fp64 models have fp64 states
        return window + size.batch * config.num_key_value_heads * numbers * state_bytes


def _may_update_in_place(state: Tensor) -> bool:
    """Whether the state may be updated in place, that is no gradient needs its old value."""
    if torch.is_grad_enabled():
        return False
    return torch.is_inference_mode_enabled() or not state.is_inference()
