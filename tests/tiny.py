"""Tiny random models, built from a config and a seed; nothing is downloaded."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from layerwright.tasks.hybrid.families import from_base_config
from layerwright.tasks.hybrid.modeling import HybridForCausalLM

VOCABULARY = 259  # the bytes and three special tokens
LAYERS = 4


def tiny_llama_config(**overrides) -> LlamaConfig:
    """4 layers, hidden 48, 6 heads of 8, 2 key/value heads."""
    fields = {
        "vocab_size": VOCABULARY,
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "bos_token_id": 256,
        "eos_token_id": 257,
        "pad_token_id": 258,
        # Wide enough that attention is far from uniform and a wrong mask shows in the logits.
        "initializer_range": 0.2,
    }
    return LlamaConfig(**(fields | overrides))


def tiny_llama(seed: int = 0, **overrides) -> LlamaForCausalLM:
    """A random Llama in eval mode; the same weights for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(tiny_llama_config(**overrides)).eval()


def tiny_tokens(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    """Random byte tokens (rows, length), without special tokens."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (rows, length), generator=generator)


def _gated(gate: str, **options) -> dict:
    """Spec of a gated recurrence mixer, the paper's shares where none are given."""
    defaults = {"sinks": 0, "alpha": 0.5, "beta": 0.5, "decay_bias": False}
    return {"kind": "gated_recurrence", "gate": gate} | defaults | options


def _local(spans: int | list[int], **options) -> dict:
    """Spec of a local mixer, corrected by block means where a block is given."""
    correction = "block_mean" if "block" in options else "none"
    defaults = {"key_mean": "rotated", "widen": None} if "block" in options else {"ramp": None}
    return {"kind": "local", "spans": spans, "sinks": 2, "correction": correction} | (
        defaults | options
    )


# Every kind of layer, by name: the contract tests run over all rows. A new mixer adds rows here.
LAYER_SPECS = {
    "full": {"mixer": {"kind": "full"}},
    "streaming": {"mixer": {"kind": "streaming", "sinks": 2, "window": 6}},
    "streaming_no_sinks": {"mixer": {"kind": "streaming", "sinks": 0, "window": 5}},
    "streaming_narrowest": {"mixer": {"kind": "streaming", "sinks": 1, "window": 1}},
    "streaming_wider_than_context": {"mixer": {"kind": "streaming", "sinks": 3, "window": 1000}},
    "window": {"mixer": {"kind": "window", "window": 6}},
    "window_narrowest": {"mixer": {"kind": "window", "window": 1}},
    "no_attention": {"mixer": {"kind": "none"}},
    "linear": {"mixer": {"kind": "none"}, "feed_forward": {"kind": "linear"}},
    "removed": {"mixer": {"kind": "none"}, "feed_forward": {"kind": "none"}},
    "gla": {"mixer": _gated("gla", window=4)},
    "gla_sinks_and_bias": {"mixer": _gated("gla", window=5, sinks=2, decay_bias=True)},
    "hgrn2": {"mixer": _gated("hgrn2", window=3, alpha=0.8, beta=0.3)},
    "gsa": {"mixer": _gated("gsa", window=4, slots=5)},
    "gla_mix_by_layer": {"mixer": _gated("gla", window=4, alpha=0.7, learned_mix="layer")},
    "hgrn2_mix_by_head": {"mixer": _gated("hgrn2", window=3, sinks=1, learned_mix="head")},
    "local": {"mixer": _local(6)},
    "local_spans": {"mixer": _local([9, 3], sinks=0)},
    "local_soft": {"mixer": _local([9, 6], ramp=5)},
    "local_corrected": {"mixer": _local(5, block=4)},
    "local_corrected_spans": {"mixer": _local([7, 2], block=3, key_mean="unrotated")},
    "local_widened": {"mixer": _local([3, 6], block=4, widen=0.7)},
    "local_widened_no_sinks": {
        "mixer": _local(4, sinks=0, block=5, widen=0.6, key_mean="unrotated")
    },
}


def tiny_hybrid(spec: dict, layers: tuple[int, ...] = (0, 1, 3), seed: int = 0, **overrides):
    """The tiny Llama as a HybridForCausalLM with `spec` at the given layers, full elsewhere.

    Weights that the Llama has not, such as a map, are random by the same seed.
    """
    base = tiny_llama(seed, **overrides)
    specs = [
        spec if i in layers else LAYER_SPECS["full"] for i in range(base.config.num_hidden_layers)
    ]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = HybridForCausalLM(from_base_config(base.config, specs)).eval()
        for name, parameter in model.named_parameters():
            if name.endswith(".sinks"):  # created as zeros
                torch.nn.init.normal_(parameter.data, std=2)
    model.load_state_dict(base.state_dict(), strict=False)
    return model
