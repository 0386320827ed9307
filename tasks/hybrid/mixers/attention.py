"""Base class of the mixers: projections under the base's names, norms, rotation, output.

Shapes: B batch, T new tokens, K keys, D hidden size, H query heads, G key/value heads, d head size.
"""

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

from layerwright.tasks.hybrid.placement import Placement


class CacheSize(NamedTuple):
    """Size of a KV cache.

    Attributes:
        context_tokens: slots per row, padding included.
        batch: number of rows.
        element_bytes: bytes of one element of a key or value.
        padded: the batch has padding, so that positions are stored too.
    """

    context_tokens: int
    batch: int
    element_bytes: int
    padded: bool = False


class AttentionMixer(nn.Module):
    """Base class of the mixers; a subclass defines how queries attend and its cache layer.

    Args:
        spec: the mixer's part of the layer spec, already checked.
        donor: a mixer whose projections and norms this mixer shares instead of creating its own.
    """

    kind: ClassVar[str]
    stateful: ClassVar[bool] = False  # its cache holds a state besides keys and values
    croppable: ClassVar[bool] = False  # its cache can drop the last tokens
    decides_together: ClassVar[bool] = False  # its layers select together and share one spec
    parts: ClassVar[tuple[str, ...]] = ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")

    def __init__(self, config: Any, spec: dict[str, Any], layer_idx: int, donor: Any = None):
        super().__init__()
        self.spec, self.layer_idx, self.head_dim = dict(spec), layer_idx, config.head_dim
        if donor is not None:
            for part in self.parts:
                setattr(self, part, getattr(donor, part))
            self.train(donor.training)
            return
        D, d = config.hidden_size, config.head_dim
        H, G = config.num_attention_heads, config.num_key_value_heads
        self.q_proj = nn.Linear(D, H * d, bias=config.attention_bias)
        self.k_proj = nn.Linear(D, G * d, bias=config.attention_bias)
        self.v_proj = nn.Linear(D, G * d, bias=config.attention_bias)
        self.o_proj = nn.Linear(H * d, D, bias=config.attention_output_bias)
        normed = config.query_key_norm
        self.q_norm = LlamaRMSNorm(d, eps=config.rms_norm_eps) if normed else None
        self.k_norm = LlamaRMSNorm(d, eps=config.rms_norm_eps) if normed else None

    def heads(self, hidden_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, H, T, d), keys and values (B, G, T, d): normed, not rotated."""
        shape = (*hidden_BTD.shape[:-1], -1, self.head_dim)
        q, k, v = (x(hidden_BTD).view(shape) for x in (self.q_proj, self.k_proj, self.v_proj))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)

    def project(
        self, hidden_BTD: Tensor, rotary: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries (B, H, T, d), rotated keys and values (B, G, T, d)."""
        q, k, v = self.heads(hidden_BTD)
        return *apply_rotary_pos_emb(q, k, *rotary), v

    def forward(self, hidden_BTD: Tensor, placement: Placement, cache: Any = None) -> Tensor:
        """Mixes the new tokens with the tokens in the cache; returns (B, T, D)."""
        q, k, v = self.project(hidden_BTD, placement.rotary)
        return self.output(self.attend(q, k, v, placement, cache))

    def output(self, out_BHTd: Tensor) -> Tensor:
        """The output projection of all heads, (B, T, D)."""
        return self.o_proj(out_BHTd.transpose(1, 2).flatten(2))

    def attend(
        self, q_BHTd: Tensor, k_BGTd: Tensor, v_BGTd: Tensor, placement: Placement, cache: Any
    ) -> Tensor:
        """Attention output (B, H, T, d) of rotated queries and keys; updates the cache."""
        raise NotImplementedError

    @classmethod
    def check_parameters(cls, parameters: dict[str, Any]) -> None:
        """Raises ValueError if the spec's parameters (without `kind`) are not valid."""
        if parameters:
            raise ValueError(f"takes no parameters, got {sorted(parameters)}")

    @classmethod
    def reach_tokens(cls, spec: dict[str, Any]) -> int | None:
        """Largest number of tokens that a query sees as exact keys; None for all earlier tokens."""
        return None

    @classmethod
    def cache_layer(cls, spec: dict[str, Any]) -> Any:
        """An empty cache layer (CacheLayerMixin) for this mixer."""
        raise NotImplementedError

    @classmethod
    def kv_bytes(cls, config: Any, spec: dict[str, Any], size: CacheSize) -> int:
        """Bytes that the cache layer holds at this cache size."""
        raise NotImplementedError

    @classmethod
    def all_kv_bytes(cls, config: Any, specs: list[dict[str, Any]], size: CacheSize) -> int:
        """Bytes of all layers of this kind in a model; `specs` has the spec of each layer."""
        return sum(cls.kv_bytes(config, spec, size) for spec in specs)


def check_whole(least: int, **values: Any) -> None:
    """Raises ValueError unless each named value is a whole number of at least `least`."""
    for name, value in values.items():
        if type(value) is not int or value < least:
            raise ValueError(f"{name} must be a whole number >= {least}, got {value!r}")


def key_value_bytes(config: Any, element_bytes: int) -> int:
    """Bytes of one token's key and value in one layer."""
    return 2 * config.num_key_value_heads * config.head_dim * element_bytes


def one_query_attention(
    q_BH1d: Tensor,
    k_BGKd: Tensor,
    v_BGKd: Tensor,
    mask: Tensor | None = None,
    sink_logits_H: Tensor | None = None,
) -> Tensor:
    """Attention of one query per row, (B, H, 1, d); `mask` is (B or 1, 1, 1, K) or None.

    The query heads that share a key head become the rows of one product, so keys are not repeated.
    On a CPU this is ten times faster than the general path.

    Args:
        sink_logits_H: one more term of the softmax's denominator for each query head; not with a
            mask.
    """
    B, H, _, d = q_BH1d.shape
    G = k_BGKd.shape[1]
    q_BGgd = q_BH1d.reshape(B, G, -1, d)
    if sink_logits_H is None:
        out = nn.functional.scaled_dot_product_attention(q_BGgd, k_BGKd, v_BGKd, attn_mask=mask)
        return out.reshape(B, H, 1, d)
    dtype = torch.promote_types(q_BH1d.dtype, torch.float32)
    scores = (q_BGgd @ k_BGKd.transpose(-1, -2)).to(dtype) * d**-0.5
    sinks = sink_logits_H.to(scores).reshape(1, G, -1, 1).expand(B, -1, -1, -1)
    weights = torch.cat([scores, sinks], dim=-1).softmax(-1)[..., :-1]
    return (weights.to(v_BGKd.dtype) @ v_BGKd).reshape(B, H, 1, d)
