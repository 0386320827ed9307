"""Adapters change nothing at first, alone get gradients, and come to plain weight changes."""

import pytest
import torch
from finetune.tiny_hybrid import FULL, STREAMING, tiny_hybrid
from tolerance import SAME_MODEL, relative_rms

from tasks.errors import InputError
from tasks.finetune import lora

TARGETS = ("q_proj", "o_proj", "down_proj")
IDS = torch.arange(12)[None]


def attached(seed=0):
    model = tiny_hybrid(STREAMING, FULL)
    lora.attach(model, rank=2, alpha=4, targets=TARGETS, seed=seed)
    return model


def test_an_untrained_adapter_changes_nothing():
    expected = tiny_hybrid(STREAMING, FULL)(IDS).logits
    assert torch.equal(attached()(IDS).logits, expected)


def test_only_adapters_get_gradients():
    model = attached()
    model(IDS, labels=IDS).loss.backward()
    with_gradient = {name for name, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == set(lora.trained(model))
    assert len(with_gradient) == 2 * 2 * len(TARGETS)
    assert all("lora_" in name for name in with_gradient)


def test_the_seed_decides_the_start():
    first, again, other = (lora.trained(attached(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(p, again[name]) for name, p in first.items())
    assert not all(torch.equal(p, other[name]) for name, p in first.items())


def test_attaching_leaves_the_global_generator_alone():
    model = tiny_hybrid()
    before = torch.get_rng_state()
    lora.attach(model, rank=2, alpha=2, targets=TARGETS, seed=3)
    assert torch.equal(torch.get_rng_state(), before)


def test_weight_changes_added_to_the_plain_model_give_the_adapted_one():
    model = attached()
    for index, parameter in enumerate(lora.trained(model).values()):
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(index))
    merged = tiny_hybrid(STREAMING, FULL)
    untouched = merged(IDS).logits
    weights = merged.state_dict()
    changes = {name: change() for name, change in lora.weight_changes(model).items()}
    assert len(changes) == 2 * len(TARGETS)
    merged.load_state_dict(weights | {name: weights[name] + d for name, d in changes.items()})
    adapted = model(IDS).logits
    assert relative_rms(merged(IDS).logits, adapted) <= SAME_MODEL[torch.float32]
    assert relative_rms(untouched, adapted) > 0.01


@pytest.mark.parametrize("target", ["q_project", "lm_head", "norm"])
def test_a_target_that_cannot_be_trained_is_refused(target):
    with pytest.raises(InputError, match=target) as caught:
        lora.attach(tiny_hybrid(), rank=2, alpha=2, targets=("q_proj", target), seed=0)
    assert caught.value.where == "finetune.targets"
    assert "q_proj" in caught.value.expected
    assert "lm_head" not in caught.value.expected
