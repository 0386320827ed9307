"""A tiny random model of each family, with what sets the family apart switched on."""

from itertools import cycle

import torch
from tiny import LAYER_SPECS, LAYERS, VOCABULARY
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from layerwright.tasks.hybrid.families import base_layer_specs, from_base_config
from layerwright.tasks.hybrid.modeling import HybridForCausalLM

WINDOW = 12  # of the bases that slide
CONFIGS: dict[str, tuple[type[PretrainedConfig], dict]] = {
    "llama": (LlamaConfig, {"head_dim": 8}),
    "mistral": (MistralConfig, {"head_dim": 8, "sliding_window": WINDOW}),
    "qwen2": (Qwen2Config, {"tie_word_embeddings": True}),
    "qwen3": (
        Qwen3Config,
        # heads wider than hidden_size / heads; the two upper layers slide
        {
            "head_dim": 16,
            "use_sliding_window": True,
            "sliding_window": WINDOW,
            "max_window_layers": 2,
        },
    ),
}


def tiny_config(family: str, **overrides) -> PretrainedConfig:
    """4 layers, hidden 48, 6 heads, 2 key/value heads."""
    kind, own = CONFIGS[family]
    fields = {
        "vocab_size": VOCABULARY,
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": 256,
        "eos_token_id": 257,
        "pad_token_id": 258,
        "initializer_range": 0.2,
    }
    return kind(**(fields | own | overrides))


def tiny_base(family: str, seed: int = 0, **overrides) -> PreTrainedModel:
    """Transformers' own model in eval mode; biases and norms are random too, or none would show."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(tiny_config(family, **overrides)).eval()
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter += 0.3 * torch.randn_like(parameter)
    return model


def tiny_family(
    family: str, spec: dict | None = None, layers: tuple[int, ...] = (0, 1, 3), **overrides
) -> HybridForCausalLM:
    """The tiny model of a family as a hybrid: ``spec`` at the given layers, else its own."""
    base = tiny_base(family, **overrides)
    specs = base_layer_specs(base.config)
    return _hybrid(base, [spec if spec and i in layers else own for i, own in enumerate(specs)])


def tiny_mixture(family: str) -> HybridForCausalLM:
    """One layer of every kind, in one model."""
    base = tiny_base(family, num_hidden_layers=len(LAYER_SPECS))
    return _hybrid(base, list(LAYER_SPECS.values()))


def _hybrid(base: PreTrainedModel, specs: list[dict]) -> HybridForCausalLM:
    """Weights that the base has not, such as a map, are random by one seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = HybridForCausalLM(from_base_config(base.config, specs)).eval()
    model.load_state_dict(base.state_dict(), strict=False)
    return model


MIXTURE = "mixture"
# Each kind of layer alone in one family, the families in turn; all kinds at once in every family.
CASES = [
    *zip(cycle(CONFIGS), LAYER_SPECS, strict=False),
    *((family, MIXTURE) for family in CONFIGS),
]


def tiny_case(family: str, name: str) -> HybridForCausalLM:
    """A model of CASES: one kind of layer among the base's own, or all kinds at once."""
    return tiny_mixture(family) if name == MIXTURE else tiny_family(family, LAYER_SPECS[name])
