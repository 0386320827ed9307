"""A tiny GGUF file becomes an ordinary checkpoint with the same numbers."""

import json
from pathlib import Path

import pytest
import torch
from fetch.tiny_gguf import CHAT_TEMPLATE, write_gguf
from gguf import GGMLQuantizationType, quants
from tiny import tiny_tokens
from transformers import AutoModelForCausalLM, AutoTokenizer

from layerwright.tasks.context import Context
from layerwright.tasks.errors import InputError
from layerwright.tasks.fetch.gguf import read_tokenizer
from layerwright.tasks.fetch.model import fetch_model
from layerwright.tasks.recipe.model import ModelSource
from layerwright.tasks.store.local import LocalStore

Q8 = GGMLQuantizationType.Q8_0


def fetched(tmp_path: Path, path: Path, **options: str):
    store = LocalStore(tmp_path / "store")
    ctx = Context(store=store, workdir=tmp_path / "work")
    ref = fetch_model(ModelSource(source=str(path), **options), ctx)
    return ref, store.open_tree(ref.sha256)


def test_weights_settings_and_tokenizer_come_out(tmp_path: Path) -> None:
    original = write_gguf(tmp_path / "tiny.gguf")
    ref, folder = fetched(tmp_path, tmp_path / "tiny.gguf")
    assert (ref.family, ref.layers, ref.kv_heads, ref.head_dim) == ("llama", 4, 2, 16)
    assert (ref.vocabulary, ref.dtype) == (260, "float32")
    assert ref.parameters == sum(p.numel() for p in original.parameters())
    model = AutoModelForCausalLM.from_pretrained(folder)
    ids = tiny_tokens(2, 40)
    torch.testing.assert_close(model(ids).logits, original(ids).logits, rtol=1e-5, atol=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (
        256,
        257,
        258,
    )
    assert tokenizer.chat_template == CHAT_TEMPLATE
    assert tokenizer.decode(tokenizer("a 12 é").input_ids) == "a 12 é"
    assert model.generation_config.eos_token_id == 257


def test_quantised_weights_become_the_values_they_stand_for(tmp_path: Path) -> None:
    original = write_gguf(tmp_path / "tiny.gguf", quantised=True)
    ref, folder = fetched(tmp_path, tmp_path / "tiny.gguf")
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    ours = AutoModelForCausalLM.from_pretrained(folder)
    for name in ("layers.1.mlp.down_proj.weight", "embed_tokens.weight"):
        stored = quants.quantize(original.model.get_parameter(name).detach().numpy(), Q8)
        expected = torch.from_numpy(quants.dequantize(stored, Q8))
        assert torch.equal(ours.model.get_parameter(name), expected), name
    ids = tiny_tokens(1, 20)
    assert not torch.equal(ours(ids).logits, original(ids).logits)  # it was quantised
    again, _ = fetched(tmp_path, tmp_path / "tiny.gguf")
    assert again.sha256 == ref.sha256


def test_dtype(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    ref, folder = fetched(tmp_path, tmp_path / "tiny.gguf", dtype="bfloat16")
    assert ref.dtype == "bfloat16"
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"


@pytest.mark.parametrize(("pre", "splits"), [("smollm", True), ("gpt-2", False)])
def test_digits_are_split_where_the_model_was_trained_so(
    tmp_path: Path, pre: str, splits: bool
) -> None:
    write_gguf(tmp_path / "tiny.gguf", pre=pre)
    backend = read_tokenizer(tmp_path / "tiny.gguf").backend_tokenizer
    words = [word for word, _ in backend.pre_tokenizer.pre_tokenize_str("in 1984")]
    assert words == (["in", "Ġ", "1", "9", "8", "4"] if splits else ["in", "Ġ1984"])


def test_a_broken_file_and_two_files_are_told(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    (tmp_path / "two.gguf").write_bytes(b"GGUF no")
    with pytest.raises(InputError, match="2 models"):
        fetched(tmp_path, tmp_path)
    with pytest.raises(InputError, match=r"two\.gguf cannot be read"):
        fetched(tmp_path, tmp_path / "two.gguf")
    whole = (tmp_path / "tiny.gguf").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cut\.gguf cannot be read"):
        fetched(tmp_path, tmp_path / "cut.gguf")
