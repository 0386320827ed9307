"""Tiny random models, built from a config and a seed; nothing is downloaded."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tasks.hybrid.families import from_base_config
from tasks.hybrid.modeling import HybridForCausalLM

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


# Every kind of layer, by name: the contract tests run over all rows. A new mixer adds rows here.
LAYER_SPECS = {
    "full": {"mixer": {"kind": "full"}},
    "streaming": {"mixer": {"kind": "streaming", "sinks": 2, "window": 6}},
    "streaming_no_sinks": {"mixer": {"kind": "streaming", "sinks": 0, "window": 5}},
    "streaming_narrowest": {"mixer": {"kind": "streaming", "sinks": 1, "window": 1}},
    "streaming_wider_than_context": {"mixer": {"kind": "streaming", "sinks": 3, "window": 1000}},
    "no_attention": {"mixer": {"kind": "none"}},
    "linear": {"mixer": {"kind": "none"}, "feed_forward": {"kind": "linear"}},
    "removed": {"mixer": {"kind": "none"}, "feed_forward": {"kind": "none"}},
}


def tiny_hybrid(spec: dict, layers: tuple[int, ...] = (0, 1, 3), seed: int = 0, **overrides):
    """The tiny Llama as a HybridForCausalLM with `spec` at the given layers, full elsewhere.

    Weights that the Llama has not, such as a map, are random by the same seed.
    """
    base = tiny_llama(seed, **overrides)
    specs = [spec if i in layers else LAYER_SPECS["full"] for i in range(LAYERS)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = HybridForCausalLM(from_base_config(base.config, specs)).eval()
    model.load_state_dict(base.state_dict(), strict=False)
    return model
