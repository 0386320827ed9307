"""Tiny converted checkpoints on disk, as a conversion leaves them, for the tests of this folder."""

from pathlib import Path

import torch
from tiny import LAYERS, VOCABULARY
from tiny_checkpoint import byte_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

from layerwright.tasks.hybrid.export import write_code, write_config
from layerwright.tasks.hybrid.families import from_base_config
from layerwright.tasks.hybrid.modeling import HybridForCausalLM

FULL = {"mixer": {"kind": "full"}, "feed_forward": {"kind": "mlp"}}
REMOVED = {"mixer": {"kind": "none"}, "feed_forward": {"kind": "none"}}
WINDOW = {"mixer": {"kind": "streaming", "sinks": 0, "window": 6}, "feed_forward": {"kind": "mlp"}}
SINKS = {"mixer": {"kind": "streaming", "sinks": 2, "window": 6}, "feed_forward": {"kind": "mlp"}}
LOGITS = {"mixer": {"kind": "window", "window": 6}, "feed_forward": {"kind": "mlp"}}
LINEAR = {"mixer": {"kind": "none"}, "feed_forward": {"kind": "linear"}}
NO_ATTENTION = {"mixer": {"kind": "none"}, "feed_forward": {"kind": "mlp"}}


def tiny_base(model_type: str, **overrides):
    """A random model of a family, 4 layers, whose norms and biases are random too."""
    fields = {
        "vocab_size": VOCABULARY,
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
        "bos_token_id": 256,
        "eos_token_id": 257,
        "pad_token_id": 258,
    }
    if model_type != "qwen2":
        fields["head_dim"] = 8
    if model_type == "mistral":
        fields["sliding_window"] = None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = AutoConfig.for_model(model_type, **(fields | overrides))
        model = AutoModelForCausalLM.from_config(config, dtype=config.dtype)
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                torch.nn.init.normal_(parameter, mean=1.0, std=0.3)
    return model.eval()


def write_hybrid_checkpoint(
    folder: Path, specs: list[dict], model_type: str = "llama", shard: str = "1GB", **overrides
) -> HybridForCausalLM:
    """The tiny base with these specs, written with its code and tokenizer; returns the model."""
    base = tiny_base(model_type, **overrides)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = HybridForCausalLM(from_base_config(base.config, specs)).eval().to(base.dtype)
        for name, parameter in model.named_parameters():
            if name.endswith(".sinks"):
                torch.nn.init.normal_(parameter.data, std=2)
    model.load_state_dict(base.state_dict(), strict=False)
    model.save_pretrained(folder, max_shard_size=shard)
    byte_tokenizer().save_pretrained(folder)
    write_code(folder)
    write_config(folder, model.config)
    return model
