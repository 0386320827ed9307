"""HybridConfig: the base's config fields, one spec per layer, and requirements for loaders."""

from typing import TYPE_CHECKING, Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import PretrainedConfig

from layerwright.tasks.hybrid.mixers import MIXERS
from layerwright.tasks.hybrid.stock import stock_form

FORMAT = 1  # version of the specs and the shipped code
FEED_FORWARDS = ("linear", "mlp", "none")
BIASES = ("attention_bias", "attention_output_bias", "mlp_bias")
FULL_LAYER = {"mixer": {"kind": "full"}, "feed_forward": {"kind": "mlp"}}


@strict
class HybridConfig(PretrainedConfig):
    """Configuration of a decoder in which each layer is built from its own spec.

    Attributes (others as in Transformers):
        base_model_type: the family of the weights, such as "llama".
        layer_specs: one dict per layer, {"mixer": {"kind": ..., parameters}, "feed_forward":
            {"kind": "mlp", "linear" or "none"}}; None makes every layer full attention. A removed
            layer keeps its index and has neither part.
        capabilities: see `derive_capabilities`; do not set it.
        attention_bias: biases on the query, key and value projections.
        attention_output_bias: bias on the output projection.
        query_key_norm: RMS norm over the head dimension of queries and keys, before the rotation.

    Raises:
        ValueError: a spec has an unknown kind or parameter, or the checkpoint another format.
    """

    model_type = "layerwright"
    keys_to_ignore_at_inference: ClassVar = ["past_key_values"]

    base_model_type: str = "llama"
    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = 32
    head_dim: int = 128
    hidden_act: str = "silu"
    max_position_embeddings: int = 2048
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-6
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    tie_word_embeddings: bool = False
    rope_parameters: dict | None = None
    attention_bias: bool = False
    attention_output_bias: bool = False
    mlp_bias: bool = False
    query_key_norm: bool = False
    if TYPE_CHECKING:  # None only until __post_init__
        layer_specs: list[dict[str, Any]]
        capabilities: dict[str, Any]
    else:
        layer_specs: list[dict] | None = None
        capabilities: dict | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if self.layer_specs is None:
            self.layer_specs = [FULL_LAYER] * self.num_hidden_layers
        self.layer_specs = [normalised_spec(spec, i) for i, spec in enumerate(self.layer_specs)]
        count = len(self.layer_specs)
        if count != self.num_hidden_layers:
            raise ValueError(f"layer_specs has {count} entries for {self.num_hidden_layers} layers")
        check_decided_together(self.layer_specs)
        given = (self.capabilities or {}).get("format", FORMAT)
        if given != FORMAT:
            raise ValueError(f"checkpoint format {given} is not supported, expected {FORMAT}")
        self.capabilities = derive_capabilities(self)
        super().__post_init__(**kwargs)

    def replace_layer_spec(self, index: int, spec: dict[str, Any]) -> None:
        """Sets the spec of layer `index` and updates the capabilities."""
        specs = list(self.layer_specs)
        specs[index] = normalised_spec(spec, index)
        check_decided_together(specs)
        self.layer_specs[index] = specs[index]
        self.capabilities = derive_capabilities(self)


def normalised_spec(spec: dict[str, Any], index: int) -> dict[str, Any]:
    """A checked copy of a layer's spec, with its defaults; ValueError names layer and choices."""
    if set(spec) - {"mixer", "feed_forward"} or "mixer" not in spec:
        expected = "expected the parts 'mixer' and 'feed_forward'"
        raise ValueError(f"layer {index}: {expected}, got {sorted(spec)}")
    mixer, feed_forward = spec["mixer"], spec.get("feed_forward", {"kind": "mlp"})
    kind = mixer.get("kind")
    for part, given, kinds in (
        ("mixer", kind, MIXERS),
        ("feed-forward", feed_forward.get("kind"), FEED_FORWARDS),
    ):
        if given not in kinds:
            raise ValueError(f"layer {index}: {part} kind {given!r} is not one of {sorted(kinds)}")
    if len(feed_forward) > 1:
        only_kind = "a feed-forward has no options except kind"
        raise ValueError(f"layer {index}: {only_kind}, got {feed_forward}")
    parameters = {key: value for key, value in mixer.items() if key != "kind"}
    try:
        MIXERS[kind].check_parameters(parameters)
    except ValueError as error:
        raise ValueError(f"layer {index}: mixer {kind!r}: {error}") from None
    return {"mixer": {"kind": kind, **parameters}, "feed_forward": dict(feed_forward)}


def check_decided_together(layer_specs: list[dict[str, Any]]) -> None:
    """Raises ValueError if layers that select together differ in their parameters."""
    first: dict[str, tuple[int, dict[str, Any]]] = {}
    for layer, mixer in enumerate(spec["mixer"] for spec in layer_specs):
        other, its_mixer = first.setdefault(mixer["kind"], (layer, mixer))
        if MIXERS[mixer["kind"]].decides_together and mixer != its_mixer:
            raise ValueError(
                f"layers {other} and {layer}: mixer {mixer['kind']!r} selects among all its "
                f"layers, so they need the same parameters, got {its_mixer} and {mixer}. To change "
                "the parameters, set the layers to full attention first."
            )


def derive_capabilities(config: HybridConfig) -> dict[str, Any]:
    """The checkpoint's requirements and capabilities, which loaders check before loading weights.

    Keys: mixers and feed_forwards (the kinds in use); stateful (a layer has a state besides keys
    and values); crop (the cache can be rolled back); padding (sides on which batches may be
    padded); serving (engines that can run the checkpoint directly); stock (see `stock_form`).
    """
    layer_specs = config.layer_specs
    kinds = sorted({spec["mixer"]["kind"] for spec in layer_specs})
    biases = [name for name in BIASES if getattr(config, name)]
    return {
        "format": FORMAT,
        "mixers": kinds,
        "feed_forwards": sorted({spec["feed_forward"]["kind"] for spec in layer_specs}),
        "needs": {"trust_remote_code": True, "transformers": ">=5.17,<6"},
        "stateful": any(MIXERS[kind].stateful for kind in kinds),
        "crop": all(MIXERS[kind].croppable for kind in kinds),
        "padding": ["left", "right"],
        "serving": {"transformers": True, "vllm": False},
        "stock": stock_form(config.base_model_type, layer_specs, biases),
    }
