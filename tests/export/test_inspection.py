"""What a checkpoint is, told from its config and the headers of its files."""

import json

import pytest
import torch
from export.checkpoints import FULL, REMOVED, SINKS, tiny_base, write_hybrid_checkpoint
from facts import says
from tiny import tiny_tokens

from layerwright.tasks.errors import InputError, IntegrityError
from layerwright.tasks.export.checkpoint import inspect_checkpoint
from layerwright.tasks.hybrid.cache import HybridCache

SPECS = [FULL, SINKS, SINKS, REMOVED]


def inspected(folder, tokens=None):
    """The inspection as JSON."""
    return json.loads(inspect_checkpoint(folder, tokens).model_dump_json())


def cut_to_headers(folder):
    for file in folder.glob("*.safetensors"):
        data = file.read_bytes()
        file.write_bytes(data[: 8 + int.from_bytes(data[:8], "little")])


def test_weights_are_not_read(tmp_path):
    write_hybrid_checkpoint(tmp_path, SPECS, shard="40KB")
    whole = inspected(tmp_path)
    cut_to_headers(tmp_path)
    assert inspected(tmp_path) == whole


def test_equal_layers_are_folded(tmp_path):
    write_hybrid_checkpoint(tmp_path, SPECS)
    assert inspected(tmp_path)["layer_map"] == [
        {"start": 0, "stop": 1, **FULL},
        {"start": 1, "stop": 3, **SINKS},
        {"start": 3, "stop": 4, **REMOVED},
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_are_those_that_a_cache_holds(tmp_path, dtype):
    model = write_hybrid_checkpoint(tmp_path, SPECS, dtype=dtype)
    found = inspected(tmp_path, [5, 40])
    assert found["dtype"] == str(dtype).removeprefix("torch.")
    for tokens in (5, 40):
        cache = HybridCache(model.config)
        with torch.no_grad():
            model(tiny_tokens(1, tokens), past_key_values=cache)
        row = found["kv_bytes"][str(tokens)]
        assert row["amount"] == cache.nbytes()
        assert row["full_attention"] == 4 * tokens * 2 * 2 * 8 * dtype.itemsize
        assert row["ratio"] == row["amount"] / row["full_attention"]
    one_layer = 2 * 2 * 8 * dtype.itemsize
    assert found["kv_bytes_per_token"] == {
        "amount": one_layer, "full_attention": 4 * one_layer, "ratio": 0.25,
    }  # fmt: skip


@pytest.mark.parametrize("tied", [False, True])
def test_parameters_are_those_of_the_model(tmp_path, tied):
    model = write_hybrid_checkpoint(tmp_path, SPECS, tie_word_embeddings=tied)
    found = inspected(tmp_path)
    count = sum(p.numel() for p in model.parameters())
    base = sum(p.numel() for p in tiny_base("llama", tie_word_embeddings=tied).parameters())
    assert found["parameters"] == {
        "amount": count, "full_attention": base, "ratio": count / base,
    }  # fmt: skip
    assert found["stored"] == {
        "files": 1, "tensors": len(model.state_dict()) - tied,
        "elements": count, "bytes": 4 * count,
    }  # fmt: skip


def test_contexts_end_where_the_model_does(tmp_path):
    write_hybrid_checkpoint(tmp_path, SPECS, max_position_embeddings=9000)
    assert list(inspected(tmp_path)["kv_bytes"]) == ["1024", "8192", "9000"]


def test_capabilities_are_this_codes_even_for_an_older_checkpoint(tmp_path):
    write_hybrid_checkpoint(tmp_path, SPECS)
    config = tmp_path / "config.json"
    fields = json.loads(config.read_text())
    del fields["capabilities"]["stock"]
    config.write_text(json.dumps(fields))
    stock = inspected(tmp_path)["capabilities"]["stock"]
    assert stock["obstacles"] == ["layers 1-2: attention sinks (2) beside the window"]


def test_what_is_no_converted_checkpoint_is_refused(tmp_path):
    with pytest.raises(InputError, match=says("config.json")):
        inspected(tmp_path)
    tiny_base("qwen3").save_pretrained(tmp_path)
    with pytest.raises(InputError, match="'qwen3'"):
        inspected(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match=says("config.json")):
        inspected(tmp_path)


def test_a_newer_format_and_a_wrong_length_are_refused(tmp_path):
    write_hybrid_checkpoint(tmp_path, SPECS)
    with pytest.raises(InputError, match=says("--tokens", "0")):
        inspected(tmp_path, [8, 0])
    config = tmp_path / "config.json"
    fields = json.loads(config.read_text())
    fields["capabilities"]["format"] = 9
    config.write_text(json.dumps(fields))
    with pytest.raises(InputError, match="9"):
        inspected(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, b"\x04" + b"\0" * 7 + b"none"])
def test_files_without_a_header_are_refused(tmp_path, content):
    write_hybrid_checkpoint(tmp_path, SPECS)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(IntegrityError, match=r"model\.safetensors: no(t a)? safetensors"):
        inspected(tmp_path)


def test_a_checkpoint_without_weights_is_refused(tmp_path):
    write_hybrid_checkpoint(tmp_path, SPECS)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(IntegrityError, match="no weights"):
        inspected(tmp_path)
