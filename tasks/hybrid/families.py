"""The base model families that can be converted, and how to read their configs."""

from dataclasses import dataclass
from typing import Any

from transformers import PretrainedConfig

from layerwright.tasks.hybrid.configuration import BIASES, FULL_LAYER, HybridConfig

# RoPE types whose tables do not depend on the context length, so that cached keys stay valid.
ROPE_TYPES = ("default", "linear", "llama3", "yarn")
NOT_COPIED = {"keys_to_ignore_at_inference", "base_model_type", "head_dim", "query_key_norm"}
NOT_COPIED |= {"layer_specs", "capabilities", *BIASES}
COPIED_FIELDS = [*(x for x in HybridConfig.__annotations__ if x not in NOT_COPIED), "dtype"]


@dataclass(frozen=True)
class Family:
    """One family of base models, described by its differences from a Llama block.

    Attributes:
        attention_bias, attention_output_bias, mlp_bias: whether these projections have biases, or
            the name of the field in the base's config that says so.
    """

    model_type: str
    attention_bias: bool | str = False
    attention_output_bias: bool | str = False
    mlp_bias: bool | str = False
    query_key_norm: bool = False


FAMILIES = {
    family.model_type: family
    for family in (
        Family("llama", "attention_bias", "attention_bias", "mlp_bias"),
        Family("mistral"),
        Family("qwen2", attention_bias=True),
        Family("qwen3", "attention_bias", "attention_bias", query_key_norm=True),
    )
}


def from_base_config(
    base: PretrainedConfig, layer_specs: list[dict[str, Any]] | None = None
) -> HybridConfig:
    """The hybrid configuration of a base model; by default every layer stays as in the base.

    Raises:
        ValueError: the base model or a spec is not supported; the message says why.
    """
    family = FAMILIES.get(base.model_type)
    if family is None:
        supported = f"supported: {sorted(FAMILIES)}"
        raise ValueError(f"model_type {base.model_type!r} is not supported; {supported}")
    for reason in unsupported_features(base):
        raise ValueError(f"{base.model_type} model not supported: {reason}")

    def trait(value: bool | str) -> bool:
        return getattr(base, value) if isinstance(value, str) else value

    fields = {name: getattr(base, name) for name in COPIED_FIELDS}
    fields["rope_parameters"] = dict(base.rope_parameters)
    return HybridConfig(
        **fields,
        base_model_type=base.model_type,
        head_dim=head_dim(base),
        attention_bias=trait(family.attention_bias),
        attention_output_bias=trait(family.attention_output_bias),
        mlp_bias=trait(family.mlp_bias),
        query_key_norm=family.query_key_norm,
        layer_specs=base_layer_specs(base) if layer_specs is None else layer_specs,
    )


def base_layer_specs(base: PretrainedConfig) -> list[dict[str, Any]]:
    """The base's own layers: full attention, or a sliding window without sinks."""
    window = getattr(base, "sliding_window", None)
    by_default = "full_attention" if window is None else "sliding_attention"
    kinds = getattr(base, "layer_types", None) or [by_default] * base.num_hidden_layers
    sliding = {**FULL_LAYER, "mixer": {"kind": "streaming", "sinks": 0, "window": window}}
    return [FULL_LAYER if kind == "full_attention" else sliding for kind in kinds]


def head_dim(base: PretrainedConfig) -> int:
    """Head size; some families leave it to hidden_size / num_attention_heads."""
    return getattr(base, "head_dim", None) or base.hidden_size // base.num_attention_heads


def unsupported_features(base: PretrainedConfig) -> list[str]:
    """Reasons why this base cannot be converted; empty if it can."""
    rope = base.rope_parameters or {}
    rope_type, rotated = rope.get("rope_type", "default"), rope.get("partial_rotary_factor", 1.0)
    layer_types = set(getattr(base, "layer_types", None) or ())
    unknown = ", ".join(sorted(layer_types - {"full_attention", "sliding_attention"}))
    rope_types, quantised = ", ".join(ROPE_TYPES), getattr(base, "quantization_config", None)
    reasons = {
        f"layer types {unknown}": unknown,
        f"rope_type {rope_type!r} (supported: {rope_types})": rope_type not in ROPE_TYPES,
        "rotation of only a part of each head (partial_rotary_factor)": rotated != 1.0,
        f"odd head size {head_dim(base)}": head_dim(base) % 2,
        "attention_dropout above 0": getattr(base, "attention_dropout", 0.0),
        "layers of different shapes": getattr(base, "is_heterogeneous", False),
        "quantised weights (load them dequantised and drop quantization_config)": (
            quantised is not None
        ),
    }
    return [reason for reason, applies in reasons.items() if applies]
