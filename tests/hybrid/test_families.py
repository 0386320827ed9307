"""Each family with every layer kept is Transformers' own model; others are refused."""

import pytest
import torch
from tiny import LAYER_SPECS, LAYERS, tiny_tokens
from tiny_families import CONFIGS, WINDOW, tiny_base, tiny_config, tiny_family
from tolerance import BASE_FAMILY, relative_rms

from layerwright.tasks.hybrid.families import FAMILIES, base_layer_specs, from_base_config

ROPES = {
    "linear": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0},
    "yarn": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
}
VARIANTS = {
    "as it is": {},
    "tied": {"tie_word_embeddings": True},
    "untied": {"tie_word_embeddings": False},
    "no grouping": {"num_key_value_heads": 6},
    **{f"{name} rope": {"rope_parameters": rope} for name, rope in ROPES.items()},
}
OWN_VARIANTS = {
    "llama": {
        "biases": {"attention_bias": True, "mlp_bias": True},
        "wide heads": {"head_dim": 16},
    },
    "mistral": {"full attention": {"sliding_window": None}, "wide heads": {"head_dim": 16}},
    "qwen2": {
        "upper layers slide": {
            "use_sliding_window": True,
            "sliding_window": WINDOW,
            "max_window_layers": 1,
        }
    },
    "qwen3": {"biases": {"attention_bias": True}, "full attention": {"use_sliding_window": False}},
}
CASES = [
    (family, name, overrides)
    for family in CONFIGS
    for name, overrides in (VARIANTS | OWN_VARIANTS[family]).items()
]


def test_every_family_is_tried_here():
    assert set(CONFIGS) == set(FAMILIES)


@torch.no_grad()
@pytest.mark.parametrize(
    ("family", "overrides"),
    [pytest.param(family, overrides, id=f"{family}, {name}") for family, name, overrides in CASES],
)
def test_all_kept_is_the_base(family, overrides):
    base, hybrid = tiny_base(family, **overrides), tiny_family(family, **overrides)
    assert sorted(hybrid.state_dict()) == sorted(base.state_dict())
    ids = tiny_tokens(2, 60)
    expected, actual = (
        model(ids, labels=ids, output_hidden_states=True) for model in (base, hybrid)
    )
    assert relative_rms(actual.logits, expected.logits) <= BASE_FAMILY
    assert relative_rms(actual.loss, expected.loss) <= BASE_FAMILY
    for ours, theirs in zip(actual.hidden_states, expected.hidden_states, strict=True):
        assert relative_rms(ours, theirs) <= BASE_FAMILY
    mask = torch.ones_like(ids)
    mask[0, :11] = 0
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    expected, actual = (
        model(ids, attention_mask=mask, position_ids=positions).logits for model in (base, hybrid)
    )
    assert relative_rms(actual[1], expected[1]) <= BASE_FAMILY
    assert relative_rms(actual[0, 11:], expected[0, 11:]) <= BASE_FAMILY


def test_sliding_layers_of_the_base_are_windows_without_sinks():
    def windows(family, **overrides):
        specs = base_layer_specs(tiny_config(family, **overrides))
        return [spec["mixer"].get("window") for spec in specs]

    assert windows("mistral") == [WINDOW] * LAYERS
    assert windows("mistral", sliding_window=None) == [None] * LAYERS
    assert windows("qwen2") == [None] * LAYERS
    assert windows("qwen3") == [None, None, WINDOW, WINDOW]
    assert base_layer_specs(tiny_config("mistral"))[0]["mixer"]["sinks"] == 0


@torch.no_grad()
@pytest.mark.parametrize("family", ["mistral", "qwen3"])
def test_generation_from_a_sliding_base_is_the_bases(family):
    base, hybrid = tiny_base(family), tiny_family(family)
    ids = tiny_tokens(1, 30)
    options = {"max_new_tokens": 20, "do_sample": False}
    assert hybrid.generate(ids, **options).equal(base.generate(ids, **options))


def test_layers_of_another_type_are_refused_by_name():
    config = tiny_config("qwen3")
    config.layer_types = ["full_attention"] * 3 + ["linear_attention"]
    with pytest.raises(ValueError, match="layer types linear_attention"):
        from_base_config(config)


def test_given_specs_replace_the_bases_own():
    config = from_base_config(tiny_config("mistral"), [LAYER_SPECS["full"]] * LAYERS)
    assert config.capabilities["mixers"] == ["full"]
