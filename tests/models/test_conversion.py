"""Conversion in memory takes effect, shares the weights, and is undone to the bit."""

import pytest
import torch
from tiny import LAYER_SPECS, tiny_hybrid, tiny_tokens

from layerwright.tasks.models.conversion import converted

SPEC = LAYER_SPECS["streaming"]


@torch.inference_mode()
def test_inside_it_is_the_converted_model_and_afterwards_the_base() -> None:
    ids = tiny_tokens(2, 30)
    model = tiny_hybrid(LAYER_SPECS["full"])
    before = model(ids).logits
    specs = [dict(spec) for spec in model.config.layer_specs]
    weights = {name: p.data_ptr() for name, p in model.named_parameters()}
    with converted(model, {0: SPEC, 2: SPEC}):
        inside = model(ids).logits
        assert {n: p.data_ptr() for n, p in model.named_parameters()} == weights
    assert torch.equal(inside, tiny_hybrid(SPEC, layers=(0, 2))(ids).logits)
    assert not torch.equal(inside, before)
    assert torch.equal(model(ids).logits, before)
    assert model.config.layer_specs == specs


def test_restored_after_an_error_and_after_a_spec_that_is_not_allowed() -> None:
    model = tiny_hybrid(LAYER_SPECS["full"])
    mixers = [layer.self_attn for layer in model.model.layers]
    with pytest.raises(KeyError, match="inside"), converted(model, {1: SPEC}):
        raise KeyError("inside")
    bad = {"mixer": {"kind": "streaming", "sinks": 1, "window": 0}}
    with pytest.raises(ValueError, match="window"), converted(model, {0: SPEC, 1: bad}):
        pass
    assert [layer.self_attn for layer in model.model.layers] == mixers
    assert {spec["mixer"]["kind"] for spec in model.config.layer_specs} == {"full"}


def test_nested_conversions_come_off_one_by_one() -> None:
    model = tiny_hybrid(LAYER_SPECS["full"])
    narrow = LAYER_SPECS["streaming_narrowest"]
    with converted(model, {1: SPEC}):
        with converted(model, {1: narrow}):
            assert model.config.layer_specs[1]["mixer"]["window"] == 1
        assert model.config.layer_specs[1]["mixer"]["window"] == 6
    assert model.config.layer_specs[1]["mixer"] == {"kind": "full"}
