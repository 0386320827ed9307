"""Scales learnt under a penalty: exact at their ends, right about a layer that does nothing."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import LAYER_SPECS, LAYERS, tiny_hybrid, tiny_tokens
from tiny_checkpoint import byte_tokenizer

from tasks.errors import InputError
from tasks.measure.conversion import converted
from tasks.measure.likelihood import token_nll
from tasks.profile.base import Subject
from tasks.profile.trsp_scale import TrspScale, scaled_nll
from tasks.progress import progress

IDS = tiny_tokens(1, 40, seed=3)


def subject(folder: Path, idle: int | None = None, bar=None) -> Subject:
    model = tiny_hybrid(LAYER_SPECS["full"])
    if idle is not None:  # the layer adds nothing to the stream
        with torch.no_grad():
            model.model.layers[idle].self_attn.o_proj.weight.zero_()
            model.model.layers[idle].mlp.down_proj.weight.zero_()
    rows = tiny_tokens(3, 64)
    return Subject(model, byte_tokenizer(), rows, (), folder, 5, bar or progress())


@torch.no_grad()
def test_scale_one_is_the_model_and_no_scale_is_removal() -> None:
    model = tiny_hybrid(LAYER_SPECS["full"])
    ones = {layer: torch.ones(()) for layer in range(LAYERS)}
    whole = token_nll(model(IDS).logits, IDS).mean()
    assert scaled_nll(model, IDS, ones).item() == pytest.approx(whole.item(), abs=1e-6)
    removed = {layer: one for layer, one in ones.items() if layer != 2}
    with converted(model, {2: LAYER_SPECS["removed"]}):
        without = token_nll(model(IDS).logits, IDS).mean()
    assert scaled_nll(model, IDS, removed).item() == pytest.approx(without.item(), abs=1e-6)


def test_gradient_is_that_of_finite_differences() -> None:
    model = tiny_hybrid(LAYER_SPECS["full"]).double()
    scales = torch.tensor([1.0, 0.7, 1.2, 0.4], dtype=torch.float64, requires_grad=True)

    def nll(values: torch.Tensor) -> torch.Tensor:
        return scaled_nll(model, IDS, dict(enumerate(values)))

    (gradient,) = torch.autograd.grad(nll(scales), [scales])
    for layer in range(LAYERS):
        step = torch.zeros(LAYERS, dtype=torch.float64)
        step[layer] = 1e-3
        with torch.no_grad():
            slope = (nll(scales + step) - nll(scales - step)) / 2e-3
        assert gradient[layer].item() == pytest.approx(slope.item(), rel=0.02, abs=1e-4)


@pytest.mark.parametrize("idle", [0, 2])
def test_only_the_penalty_pulls_on_a_layer_that_does_nothing(tmp_path: Path, idle: int) -> None:
    on = subject(tmp_path, idle)
    before = {name: p.clone() for name, p in on.model.named_parameters()}
    found = TrspScale(layers=1, steps_per_layer=30, penalty=0.5, learning_rate=0.01).run(on)
    scale = [scores["trsp_scale"] for scores in found.scores]
    # under a constant gradient every step of Adam is the learning rate
    assert scale[idle] == pytest.approx(1 - 30 * 0.01, abs=1e-4)
    order = [scores["trsp_order"] for scores in found.scores]
    assert sorted(order) == [0, 1, 2, 3]
    assert order.index(0) == min(range(LAYERS), key=lambda layer: abs(scale[layer]))
    assert all(torch.equal(p, before[name]) for name, p in on.model.named_parameters())


def test_after_a_kill_it_ends_where_it_would_have(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    class KillingBar(type(progress())):
        steps = 0

        def update(self, *args, **kwargs) -> None:
            self.steps += 1
            if self.steps == 6:  # in the middle of the third masking
                raise Killed

    options = TrspScale(layers=3, steps_per_layer=2, penalty=0.1)
    whole = options.run(subject(tmp_path / "whole"))
    with pytest.raises(Killed):
        options.run(subject(tmp_path / "killed", bar=KillingBar()))
    resumed = options.run(subject(tmp_path / "killed"))
    assert resumed.scores == whole.scores


def test_more_layers_than_there_are_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="5 cannot be masked"):
        TrspScale(layers=5).run(subject(tmp_path))
    with pytest.raises(InputError, match="rows of one token"):
        TrspScale().run(replace(subject(tmp_path), rows=tiny_tokens(2, 1)))
