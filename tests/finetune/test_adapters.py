"""Adapters change nothing at first, alone get gradients, and come to plain weights."""

import pytest
import torch
from tiny import LAYER_SPECS, tiny_hybrid
from tolerance import SAME_MODEL, relative_rms

from layerwright.tasks.errors import InputError
from layerwright.tasks.finetune.adapters import apply_weights, attach, merge, trainable
from layerwright.tasks.recipe.training import AdapterOptions

TARGETS = ("q_proj", "o_proj", "down_proj")
IDS = torch.arange(12)[None]
KINDS = {
    "lora": {},
    "rslora": {"rslora": True},
    "dora": {"dora": True},
    "full": {"kind": "full"},
    "parts": {"kind": "none"},
}


def model(spec="gla_mix_by_layer"):
    return tiny_hybrid(LAYER_SPECS[spec])


def options(**changed):
    return AdapterOptions(**{"rank": 2, "alpha": 3, "targets": TARGETS} | changed)


def attached(seed=0, parts=(), **changed):
    made = model()
    attach(made, options(**changed), seed=seed, parts=parts)
    return made


def shaken(made):
    """With every trained parameter moved."""
    generator = torch.Generator().manual_seed(3)
    for parameter in trainable(made).values():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_an_untrained_adapter_changes_nothing(kind):
    made = attached(parts=("mix",), **KINDS[kind])
    difference = relative_rms(made(IDS).logits, model()(IDS).logits)
    # DoRA divides by a norm and multiplies with it again
    assert difference <= (SAME_MODEL[torch.float32] if kind == "dora" else 0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_is_trained_gets_gradients(kind):
    made = attached(parts=("mix",), **KINDS[kind])
    made(IDS, labels=IDS).loss.backward()
    with_gradient = {name for name, p in made.named_parameters() if p.grad is not None}
    assert with_gradient == set(trainable(made))
    mixes = {name for name in with_gradient if name.endswith(".mix")}
    assert len(mixes) == 3
    assert not any("embed_tokens" in name or "lm_head" in name for name in with_gradient)
    others = {"lora": 4 * 3 * 2, "rslora": 4 * 3 * 2, "dora": 4 * 3 * 3, "parts": 0}
    if kind in others:
        assert len(with_gradient - mixes) == others[kind]
    else:
        assert "model.norm.weight" in with_gradient


@pytest.mark.parametrize("kind", KINDS)
def test_the_merged_weights_are_the_adapted_model(kind):
    made = shaken(attached(parts=("mix",), **KINDS[kind]))
    adapted = made(IDS).logits
    merged = model()
    untouched = merged(IDS).logits
    weights = merge(made)
    assert all(tensor.dtype == torch.float32 for tensor in weights.values())
    apply_weights(merged, weights)
    assert relative_rms(merged(IDS).logits, adapted) <= SAME_MODEL[torch.float32]
    assert relative_rms(untouched, adapted) > 0.01


def test_weights_in_half_precision_are_merged_in_fp32():
    made = model().bfloat16()
    before = made.model.layers[0].self_attn.q_proj.weight.float()
    attach(made, options(), seed=0)
    assert all(p.dtype == torch.float32 for p in trainable(made).values())
    shaken(made)
    name = "model.layers.0.self_attn.q_proj"
    a, b = (made.get_parameter(f"{name}.lora_{x}.healing.weight") for x in "AB")
    expected = before + 3 / 2 * b @ a
    assert relative_rms(merge(made)[f"{name}.weight"], expected) <= SAME_MODEL[torch.float32]


def test_the_seed_decides_the_start_and_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    first, again, other = (trainable(attached(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(p, again[name]) for name, p in first.items())
    assert not all(torch.equal(p, other[name]) for name, p in first.items())


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_mixers_of_some_layers_alone(kind):
    made = model()
    parameters = attach(made, options(kind=kind), seed=0, mixers_of=[1])
    assert parameters
    assert all(
        name.startswith(("model.layers.1.self_attn.", "model.layers.1.input_layernorm."))
        for name in parameters
    )


@pytest.mark.parametrize(
    ("spec", "part", "suffixes"),
    [
        ("linear", "linear", {"linear.weight", "linear.bias"}),
        ("gla_sinks_and_bias", "decay", {"self_attn.decay_bias"}),
        ("hgrn2_mix_by_head", "mix", {"self_attn.mix"}),
    ],
)
def test_parts_are_trained_in_full(spec, part, suffixes):
    parameters = attach(model(spec), options(kind="none"), seed=0, parts=[part])
    layers = (0, 1, 3)
    assert set(parameters) == {f"model.layers.{i}.{s}" for i in layers for s in suffixes}


@pytest.mark.parametrize("target", ["q_project", "lm_head", "norm"])
def test_a_target_that_cannot_be_trained_is_refused(target):
    with pytest.raises(InputError, match=target) as caught:
        attach(model(), options(targets=("q_proj", target)), seed=0, where="finetune.stages.1")
    assert caught.value.where == "finetune.stages.1.adapter.targets"
    assert "q_proj" in caught.value.expected
    assert "lm_head" not in caught.value.expected


def test_a_part_that_is_not_there_or_trained_twice_is_refused():
    with pytest.raises(InputError, match="linear") as caught:
        attach(model(), options(), seed=0, parts=["linear"])
    assert "the strategy linear" in caught.value.expected
    with pytest.raises(InputError, match="trained twice"):
        attach(model("linear"), options(targets=("linear",)), seed=0, parts=["linear"])
