"""Gated recurrence beside a window, from the weights of attention (Liger, arXiv 2503.01496).

Shapes: B batch, T new tokens, H query heads, G key/value heads, d head size, m slots, c channels of
a gate (d, or m for slots).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from layerwright.kernels.gated_recurrence import gated_recurrence, gated_recurrence_step
from layerwright.kernels.liger_decode import liger_decode
from layerwright.kernels.liger_decode.maps import features, log_decay, written
from layerwright.tasks.hybrid.mixers.fixed_cache import FixedRecurrentLayer
from layerwright.tasks.hybrid.mixers.recurrent_cache import RecurrentCacheLayer
from layerwright.tasks.hybrid.mixers.streaming import StreamingAttention
from layerwright.tasks.hybrid.placement import Placement

GATES = ("gla", "gsa", "hgrn2")
LEARNED_MIXES = ("layer", "head")
STATE_BYTES = 4  # fp32


class GatedRecurrence(StreamingAttention):
    """o = alpha y + beta attention(q, k, v) over sinks and window, then the layer's own o_proj.

    y is read from a state that every token passes through; it takes queries and keys before the
    rotation, the window after it. With b the decay bias (zero unless the spec asks for it), each
    key/value head has one state, in fp32, read by all query heads of its group:

        gla    S_t = G_t ⊙ S_{t-1} + softmax(k_t)ᵀ v_t   log G = logsigmoid(k + b) / 16
               y_t = softmax(q_t) S_t
        hgrn2  S_t = G_t ⊙ S_{t-1} + (1 - G_t)ᵀ v_t      G = sigmoid(k + b)
               y_t = softmax(q_t) S_t
        gsa    K_t = g_t ⊙ K_{t-1} + (1 - g_t)ᵀ k_t      log g = logsigmoid(pool_m(k) + b) / 16
               V_t = g_t ⊙ V_{t-1} + (1 - g_t)ᵀ v_t
               y_t = softmax(q_t K_tᵀ) V_t

    The softmax of q and k runs over the head dimension, that of gsa over the m slots; there is no
    denominator and no scale 1 / sqrt(d), as in Liger's published code (gsa: arXiv 2409.07146,
    section 3). pool_m averages neighbouring channels of a head into m (adaptive average pooling).

    Spec: {"kind": "gated_recurrence", "gate": "gla", "hgrn2" or "gsa", "window": W >= 1 (the
    query's own position included), "sinks": S >= 0 (0 in the paper), "alpha", "beta": the shares
    (0.5 each in the paper), "decay_bias": whether there is a b (G, c), "slots": m >= 1 (gsa only)}.
    With "learned_mix": "layer" or "head" the shares are a parameter `mix`, alpha and beta for the
    whole layer (2, 1) or for each query head (2, H), which starts at the spec's.

    Attributes:
        shown: what is let through of each branch, 1.0 or (B, 1, 1, 1): for training with windows
            dropped and for ablations; never anything but 1.0 elsewhere.
    """

    kind = "gated_recurrence"
    stateful = True

    def __init__(self, config, spec, layer_idx: int, donor=None):
        super().__init__(config, spec, layer_idx, donor)
        self.decay_bias: nn.Parameter | None = None
        if spec["decay_bias"]:
            shape = config.num_key_value_heads, spec.get("slots", config.head_dim)
            given = getattr(donor, "decay_bias", None)
            shared = given is not None and given.shape == shape
            self.decay_bias = given if shared else nn.Parameter(torch.zeros(shape))
        self.mix: nn.Parameter | None = None
        if kind := spec.get("learned_mix"):
            heads = config.num_attention_heads if kind == "head" else 1
            given = getattr(donor, "mix", None)
            shared = given is not None and given.shape == (2, heads)
            self.mix = given if shared else nn.Parameter(self.initial_mix(spec, heads))
        self.shown: dict[str, float | Tensor] = {"recurrence": 1.0, "window": 1.0}

    @staticmethod
    def initial_mix(spec, heads: int) -> Tensor:
        """The spec's shares as the parameter has them, (2, heads)."""
        return torch.tensor([[spec["alpha"]], [spec["beta"]]]).repeat(1, heads)

    def forward(self, hidden_BTD: Tensor, placement: Placement, cache=None) -> Tensor:
        q, k, v = self.heads(hidden_BTD)
        rotated = apply_rotary_pos_emb(q, k, *placement.rotary)
        layer = None if cache is None else cache.layers[self.layer_idx]
        if isinstance(layer, FixedRecurrentLayer) and self.spec["gate"] != "gsa":
            out_BHTd = self.decode(q, k, v, *rotated, placement, layer)
        else:
            window_BHTd = self.attend(*rotated, v, placement, cache)
            mask_BT = None if placement.contiguous else placement.positions >= 0
            memory_BHTd = self.recur(q, k, v, mask_BT, layer)
            alpha, beta = self.spec["alpha"], self.spec["beta"]
            if self.mix is not None:
                alpha, beta = self.mix.to(memory_BHTd.dtype)[..., None, None]
            alpha, beta = alpha * self.shown["recurrence"], beta * self.shown["window"]
            out_BHTd = (alpha * memory_BHTd + beta * window_BHTd).to(v.dtype)
        return self.o_proj(out_BHTd.transpose(1, 2).flatten(2))

    def decode(
        self,
        q_BH1d: Tensor,
        k_BG1d: Tensor,
        v_BG1d: Tensor,
        rotated_q_BH1d: Tensor,
        rotated_k_BG1d: Tensor,
        placement: Placement,
        layer: FixedRecurrentLayer,
    ) -> Tensor:
        """Output (B, H, 1, d) of one new token, window and recurrence by one operator."""
        if layer.shares is None:  # once: a recorded step cannot copy from the host
            shares = self.initial_mix(self.spec, 1) if self.mix is None else self.mix.detach()
            shares = shares.to(layer.state.device, layer.state.dtype)
            layer.shares = shares.expand(2, q_BH1d.shape[1]).contiguous()
        return liger_decode(
            *(q_BH1d, k_BG1d, v_BG1d, rotated_q_BH1d, rotated_k_BG1d, layer.ring),
            *(placement.positions, layer.state, self.spec["gate"], self.decay_bias),
            *(layer.shares, self.spec["window"]),
        )

    def recur(
        self,
        q_BHTd: Tensor,
        k_BGTd: Tensor,
        v_BGTd: Tensor,
        mask_BT: Tensor | None = None,
        layer: RecurrentCacheLayer | None = None,
    ) -> Tensor:
        """y (B, H, T, d) in fp32 of queries and keys before the rotation; moves the cache on.

        Args:
            mask_BT: False for padding, which leaves the state as it is; None for none.
            layer: where the state comes from and is left; None starts from nothing.
        """
        dtype = torch.promote_types(k_BGTd.dtype, torch.float32)
        q, k, v = (x.to(dtype) for x in (q_BHTd, k_BGTd, v_BGTd))
        log_decay_BGTc = self.log_decay(k)

        def run(q, k, v, state: str, decayed: str = "key") -> Tensor:
            before = None if layer is None else getattr(layer, state)
            if before is not None and q.shape[2] == 1 and _may_change(before):
                return gated_recurrence_step(
                    *(q, k, v, log_decay_BGTc, before), decayed=decayed, mask_B1=mask_BT
                )
            out, after = gated_recurrence(
                *(q, k, v, log_decay_BGTc, before),
                decayed=decayed,
                mask_BT=mask_BT,
                return_state=True,
            )
            if layer is not None:
                setattr(layer, state, after)
            return out

        gate = self.spec["gate"]
        if gate != "gsa":
            return run(*features(q, k, log_decay_BGTc, gate), v, "state")
        written_BGTc = written(log_decay_BGTc)
        scores_BHTm = run(q, k, written_BGTc, "slot_keys", decayed="value")
        return run(scores_BHTm.softmax(-1), written_BGTc, v, "state")

    def log_decay(self, k_BGTd: Tensor) -> Tensor:
        """The gate (B, G, T, c) of keys before the rotation, as a logarithm."""
        logits_BGTc = k_BGTd
        if self.spec["gate"] == "gsa":
            # Only the last dimension is pooled, but the pooling takes no more than two before it.
            pooled = F.adaptive_avg_pool1d(k_BGTd.flatten(0, 1), self.spec["slots"])
            logits_BGTc = pooled.unflatten(0, k_BGTd.shape[:2])
        return log_decay(logits_BGTc, self.spec["gate"], self.decay_bias)

    @classmethod
    def check_parameters(cls, parameters) -> None:
        names = {"gate", "window", "sinks", "alpha", "beta", "decay_bias"}
        gate = parameters.get("gate")
        if gate not in GATES:
            raise ValueError(f"gate must be one of {list(GATES)}, got {gate!r}")
        if gate == "gsa":
            names |= {"slots"}
        if "learned_mix" in parameters:
            names |= {"learned_mix"}
            if parameters["learned_mix"] not in LEARNED_MIXES:
                raise ValueError(
                    f"learned_mix must be one of {list(LEARNED_MIXES)}, or not be there, got "
                    f"{parameters['learned_mix']!r}"
                )
        if set(parameters) != names:
            raise ValueError(
                f"with gate {gate!r} it takes {sorted(names)}, got {sorted(parameters)}"
            )
        super().check_parameters({name: parameters[name] for name in ("sinks", "window")})
        for name in ("alpha", "beta"):
            value = parameters[name]
            if type(value) not in (int, float) or not math.isfinite(value):
                raise ValueError(f"{name} must be a finite number, got {value!r}")
        if not isinstance(parameters["decay_bias"], bool):
            raise ValueError(f"decay_bias must be true or false, got {parameters['decay_bias']!r}")
        slots = parameters.get("slots", 1)
        if type(slots) is not int or slots < 1:
            raise ValueError(f"slots must be a whole number >= 1, got {slots!r}")

    @classmethod
    def cache_layer(cls, spec) -> RecurrentCacheLayer:
        return RecurrentCacheLayer(spec["sinks"], spec["window"])

    @classmethod
    def kv_bytes(cls, config, spec, context_tokens, batch, element_bytes, padded=False) -> int:
        window = super().kv_bytes(config, spec, context_tokens, batch, element_bytes, padded)
        if not context_tokens:
            return window
        size = config.head_dim
        numbers = 2 * size * spec["slots"] if spec["gate"] == "gsa" else size * size
        state_bytes = max(STATE_BYTES, element_bytes)  # a model in fp64 has states in fp64
        return window + batch * config.num_key_value_heads * numbers * state_bytes


def _may_change(state: Tensor) -> bool:
    """Whether the state can be updated in place: no gradient may need what it was."""
    if torch.is_grad_enabled():
        return False
    return torch.is_inference_mode_enabled() or not state.is_inference()
