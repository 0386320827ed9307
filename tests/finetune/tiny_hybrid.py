"""A hybrid model of two layers, for the tests of this room."""

import torch
from tiny import tiny_llama_config

from tasks.hybrid.families import from_base_config
from tasks.hybrid.modeling import HybridForCausalLM

FULL = {"mixer": {"kind": "full"}}
STREAMING = {"mixer": {"kind": "streaming", "sinks": 1, "window": 4}}


def tiny_hybrid(*specs: dict, seed: int = 0) -> HybridForCausalLM:
    """The same seed gives the same weights, whatever the specs are; full attention by default."""
    base = tiny_llama_config(num_hidden_layers=2, tie_word_embeddings=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return HybridForCausalLM(from_base_config(base, list(specs) or [FULL, FULL])).eval()
