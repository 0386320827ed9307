"""A branch left out is left out where it was asked for, and nowhere afterwards."""

import pytest
import torch
from tiny import LAYER_SPECS, tiny_hybrid, tiny_tokens
from tolerance import SAME_MODEL, relative_rms

from layerwright.tasks.models.ablation import ablated

IDS = tiny_tokens(2, 20)


def spec(**changed):
    return {"mixer": LAYER_SPECS["gla_sinks_and_bias"]["mixer"] | changed}


@pytest.mark.parametrize(("branch", "share"), [("window", "beta"), ("recurrence", "alpha")])
@pytest.mark.parametrize("name", ["fixed", "head"])
def test_a_model_without_a_branch_is_one_whose_share_is_zero(branch, share, name):
    learned = {} if name == "fixed" else {"learned_mix": name}
    model, without = tiny_hybrid(spec(**learned)), tiny_hybrid(spec(**learned, **{share: 0.0}))
    before = model(IDS).logits
    with ablated(model, branch):
        assert relative_rms(model(IDS).logits, without(IDS).logits) <= SAME_MODEL[torch.float32]
    assert torch.equal(model(IDS).logits, before)


def test_some_rows_alone():
    model = tiny_hybrid(spec())
    plain = model(IDS).logits
    with ablated(model, "window"):
        without = model(IDS).logits
    with ablated(model, "window", torch.tensor([True, False])):
        some = model(IDS).logits
    assert relative_rms(some[0], without[0]) <= SAME_MODEL[torch.float32]
    assert relative_rms(some[1], plain[1]) <= SAME_MODEL[torch.float32]
    assert relative_rms(some[0], plain[0]) > 0.01


def test_it_is_put_back_whatever_happens_inside():
    model = tiny_hybrid(spec())
    before = model(IDS).logits
    with pytest.raises(KeyError), ablated(model, "window"):
        raise KeyError
    assert torch.equal(model(IDS).logits, before)
