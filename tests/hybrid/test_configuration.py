"""Layer specs, capabilities, and what a base model must be."""

import json

import pytest
from facts import says
from tiny import LAYER_SPECS, LAYERS, tiny_llama_config
from transformers import GPT2Config, LlamaConfig

from layerwright.tasks.hybrid.configuration import HybridConfig
from layerwright.tasks.hybrid.families import FAMILIES, from_base_config

FULL, STREAMING = LAYER_SPECS["full"], LAYER_SPECS["streaming"]


def specs_with(index: int, spec: dict) -> list[dict]:
    return [spec if i == index else FULL for i in range(LAYERS)]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"mixer": {"kind": "lazy"}}, r"layer 2: mixer kind 'lazy' is not one of \['full', "),
        ({"mixer": {}}, "layer 2: mixer kind None"),
        ({"mixer": {"kind": "full", "window": 3}}, r"layer 2: mixer 'full': takes no parameters"),
        (
            {"mixer": {"kind": "streaming", "window": 3}},
            "mixer 'streaming': takes 'sinks'",
        ),
        (
            {"mixer": {"kind": "streaming", "sinks": 1, "window": 0}},
            "window must be .* >= 1",
        ),
        ({"mixer": {"kind": "streaming", "sinks": True, "window": 1}}, "sinks must be .* got True"),
        ({"mixer": {"kind": "streaming", "sinks": 1, "window": 1.5}}, "window must be .* got 1.5"),
        (FULL | {"feed_forward": {"kind": "moe"}}, r"'moe' is not one of \['linear', 'mlp'"),
        (
            FULL | {"feed_forward": {"kind": "mlp", "wide": 3}},
            "layer 2: a feed-forward has no options",
        ),
        ({"attention": "full"}, "layer 2: expected the parts"),
        ({}, "layer 2: expected the parts"),
    ],
)
def test_bad_specs_name_the_layer(spec, message):
    with pytest.raises(ValueError, match=message):
        from_base_config(tiny_llama_config(), specs_with(2, spec))


def test_one_spec_per_layer():
    with pytest.raises(ValueError, match=says("layer_specs", "2", "4 layers")):
        from_base_config(tiny_llama_config(), [FULL, FULL])


def test_capabilities_follow_the_specs():
    full = from_base_config(tiny_llama_config()).capabilities
    assert full["mixers"] == ["full"]
    assert full["crop"] is True
    mixed = from_base_config(tiny_llama_config(), specs_with(1, STREAMING)).capabilities
    assert mixed == {
        "format": 1,
        "mixers": ["full", "streaming"],
        "feed_forwards": ["mlp"],
        "needs": {"trust_remote_code": True, "transformers": ">=5.17,<6"},
        "stateful": False,
        "crop": False,
        "padding": ["left", "right"],
        "serving": {"transformers": True, "vllm": False},
        "stock": {
            "model_type": None,
            "obstacles": ["layer 1: attention sinks (2) beside the window"],
        },
    }
    assert full["stock"] == {"model_type": "llama", "obstacles": []}


def test_saved_config_comes_back(tmp_path):
    config = from_base_config(tiny_llama_config(), specs_with(1, STREAMING))
    config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["model_type"] == "layerwright"
    assert saved["base_model_type"] == "llama"
    assert saved["layer_specs"][1] == STREAMING | {"feed_forward": {"kind": "mlp"}}
    assert saved["capabilities"] == config.capabilities
    assert HybridConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


def test_another_format_is_refused():
    with pytest.raises(ValueError, match="2"):
        HybridConfig(num_hidden_layers=1, capabilities={"format": 2})


def test_base_fields_are_carried():
    base = tiny_llama_config(tie_word_embeddings=True, attention_bias=True, rms_norm_eps=1e-4)
    config = from_base_config(base)
    assert (config.head_dim, config.num_key_value_heads, config.vocab_size) == (8, 2, 259)
    assert config.tie_word_embeddings
    assert config.attention_bias
    assert config.attention_output_bias
    assert not config.mlp_bias
    assert config.rms_norm_eps == 1e-4
    assert config.rope_parameters == base.rope_parameters
    assert config.eos_token_id == base.eos_token_id


def test_older_rope_fields_are_understood():
    base = LlamaConfig.from_dict(
        {"model_type": "llama", "rope_theta": 100000.0, "rope_scaling": None}
    )
    assert from_base_config(base).rope_parameters["rope_theta"] == 100000.0


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (GPT2Config(), r"model_type 'gpt2' is not supported; supported: \['llama'"),
        (
            tiny_llama_config(
                rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
            ),
            "llama model not supported: rope_type 'dynamic' .*default, linear, llama3, yarn",
        ),
        (
            tiny_llama_config(rope_parameters={"rope_theta": 1e4, "partial_rotary_factor": 0.5}),
            "partial_rotary_factor",
        ),
        (tiny_llama_config(attention_dropout=0.1), "attention_dropout above 0"),
        (
            tiny_llama_config(quantization_config={"quant_method": "gguf"}),
            "quantised weights",
        ),
    ],
)
def test_unsupported_bases_are_refused_by_name(base, message):
    with pytest.raises(ValueError, match=message):
        from_base_config(base)


def test_families_are_listed():
    assert "llama" in FAMILIES
