"""A streamed layer keeps its weights while it is at work, through other passes and gradients."""

from pathlib import Path

import pytest
import torch
from tiny import tiny_tokens
from tiny_checkpoint import write_checkpoint

from layerwright.tasks.models.conversion import change_layer, shallow_copy
from layerwright.tasks.models.layer_turn import at_work
from layerwright.tasks.models.loading import load_base
from layerwright.tasks.offload.offload import load_streamed

REMOVED = {"mixer": {"kind": "none"}, "feed_forward": {"kind": "none"}}
STREAMING = {"mixer": {"kind": "streaming", "sinks": 1, "window": 5}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "model")


def test_weights_are_read_once_for_many_rows_and_go_afterwards(folder: Path) -> None:
    rows = tiny_tokens(3, 20)
    with load_streamed(folder, resident_layers=1) as streamed, torch.no_grad():
        model = streamed.model.model
        x, placement = model.prepare(rows)
        weight = "self_attn.q_proj.weight"
        assert model.layers[2].get_parameter(weight).is_meta
        with at_work(model.layers[2]):
            assert not model.layers[2].get_parameter(weight).is_meta
            with at_work(model.layers[2]):
                for row in x:
                    model.layers[2](row[None], placement)
            assert not model.layers[2].get_parameter(weight).is_meta
        assert streamed.slot.asked == 1
        assert model.layers[2].get_parameter(weight).is_meta


def test_a_gradient_is_taken_of_a_layer_at_work_and_of_no_other(folder: Path) -> None:
    def gradient(model, hold) -> torch.Tensor:
        x, placement = model.prepare(tiny_tokens(1, 20))
        x = x.detach().requires_grad_()
        with hold(model.layers[1]):
            out = model.layers[1](x, placement)
            return torch.autograd.grad(out.square().sum(), x)[0]

    expected = gradient(load_base(folder).model, at_work)
    with load_streamed(folder, resident_layers=1) as streamed:
        assert torch.equal(gradient(streamed.model.model, at_work), expected)
        with pytest.raises(RuntimeError, match="at_work"):
            gradient(streamed.model.model, lambda layer: torch.enable_grad())


@torch.no_grad()
@pytest.mark.parametrize("spec", [REMOVED, STREAMING])
def test_what_a_layer_is_turned_into_has_its_weights_too(folder: Path, spec: dict) -> None:
    ids, resident = tiny_tokens(1, 20), load_base(folder)
    before = resident(ids).logits
    resident.set_layer_spec(1, spec)
    expected = resident(ids).logits
    with load_streamed(folder, resident_layers=1) as streamed:
        copy = shallow_copy(streamed.model)
        change_layer(copy, 1, spec)
        assert torch.equal(copy(ids).logits, expected)
        assert torch.equal(streamed.model(ids).logits, before)
        assert not torch.equal(before, expected)
