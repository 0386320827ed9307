"""Bases load as hybrids with the base's logits; what cannot be loaded is refused clearly."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_llama, tiny_tokens
from tiny_checkpoint import write_checkpoint
from tolerance import BASE_FAMILY, relative_rms

from layerwright.tasks.errors import InputError, IntegrityError
from layerwright.tasks.models.loading import load_base, load_tokenizer


@torch.inference_mode()
@pytest.mark.parametrize("tied", [False, True])
def test_a_base_has_its_own_logits(tmp_path: Path, tied: bool) -> None:
    folder = write_checkpoint(tmp_path / "model", tie_word_embeddings=tied)
    ids = tiny_tokens(2, 50)
    base = tiny_llama(max_position_embeddings=2048, tie_word_embeddings=tied)
    model = load_base(folder)
    assert relative_rms(model(ids).logits, base(ids).logits) <= BASE_FAMILY
    assert not model.training
    assert load_tokenizer(folder).decode(load_tokenizer(folder)("ab").input_ids) == "ab"


def test_dtype_is_the_checkpoints_unless_asked_for(tmp_path: Path) -> None:
    tiny_llama().to(torch.bfloat16).save_pretrained(tmp_path)
    assert load_base(tmp_path).dtype == torch.bfloat16
    assert load_base(tmp_path, dtype=torch.float32).dtype == torch.float32


def test_another_family_is_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "gpt2"}))
    with pytest.raises(InputError, match=r"gpt2.*not supported"):
        load_base(folder)


@pytest.mark.parametrize("lost", ["model.norm.weight", "model.layers.2.mlp.down_proj.weight"])
def test_a_missing_tensor_is_not_made_up(tmp_path: Path, lost: str) -> None:
    folder = write_checkpoint(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    del weights[lost]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(IntegrityError, match=lost):
        load_base(folder)
