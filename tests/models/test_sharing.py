"""Two models share what is equal outside their layers, and compute what they did before."""

import gc
from pathlib import Path

import pytest
import torch
from tiny import tiny_tokens
from tiny_checkpoint import write_checkpoint

from layerwright.tasks.models.conversion import share_outside_layers
from layerwright.tasks.offload.offload import load_streamed

IDS = tiny_tokens(2, 20)


def load(folder: Path):
    return load_streamed(folder).model


def outside(model) -> set[int]:
    """Where the memory of what lies outside the layers begins."""
    parts = (model.model.embed_tokens, model.model.norm, model.lm_head)
    return {part.weight.untyped_storage().data_ptr() for part in parts}


def held() -> set[int]:
    """Where the memory of every tensor that is alive begins."""
    gc.collect()
    tensors = [x for x in gc.get_objects() if type(x) in (torch.Tensor, torch.nn.Parameter)]
    return {x.untyped_storage().data_ptr() for x in tensors if not x.is_meta}


@pytest.mark.parametrize("tied", [False, True])
def test_equal_weights_are_held_once(tmp_path: Path, tied: bool) -> None:
    folder = write_checkpoint(tmp_path / "model", tie_word_embeddings=tied)
    one, other = load(folder), load(folder)
    own = outside(other)
    assert own.isdisjoint(outside(one))
    expected = other(IDS).logits
    share_outside_layers(other, one)
    assert outside(other) == outside(one)
    assert own.isdisjoint(held())
    assert (other.lm_head.weight is other.model.embed_tokens.weight) == tied
    assert torch.equal(other(IDS).logits, expected)


@pytest.mark.parametrize("tied", [False, True])
def test_what_differs_stays_its_own(tmp_path: Path, tied: bool) -> None:
    one = load(write_checkpoint(tmp_path / "one", tie_word_embeddings=tied))
    other = load(write_checkpoint(tmp_path / "other", tie_word_embeddings=False))
    other.model.norm.weight.data[3] = 0.5
    other.lm_head.weight.data[1, 2] += 1
    own, expected, before = outside(other), other(IDS).logits, one(IDS).logits
    share_outside_layers(other, one)
    assert own.isdisjoint(held()), "the buffer of what is shared now as well"
    assert other.model.norm.weight.data_ptr() != one.model.norm.weight.data_ptr()
    assert other.lm_head.weight.data_ptr() != one.lm_head.weight.data_ptr()
    assert other.model.embed_tokens.weight.data_ptr() == one.model.embed_tokens.weight.data_ptr()
    assert torch.equal(other(IDS).logits, expected)
    assert torch.equal(one(IDS).logits, before)
