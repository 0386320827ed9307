"""Broken checkpoints: config, index and safetensors headers that lie; told, and never followed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layerwright_process import layerwright
from mutations import FUZZ, files_under, holds, mutated
from tiny_checkpoint import write_checkpoint
from transformers import AutoConfig

from layerwright.tasks.context import Context
from layerwright.tasks.errors import IntegrityError
from layerwright.tasks.export.checkpoint import Checkpoint, inspect_checkpoint
from layerwright.tasks.fetch.model import fetch_model
from layerwright.tasks.hybrid.export import write_hybrid
from layerwright.tasks.models.weight_files import INDEX, ONE_FILE, find_tensors
from layerwright.tasks.recipe.model import ModelSource
from layerwright.tasks.store.local import LocalStore


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good base checkpoint, as one file."""
    return write_checkpoint(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    """A good converted checkpoint."""
    folder = tmp_path_factory.mktemp("hybrid") / "checkpoint"
    shutil.copytree(base, folder)
    write_hybrid(folder, AutoConfig.from_pretrained(base))
    inspect_checkpoint(folder)
    return folder


def header_of(file: Path) -> dict:
    data = file.read_bytes()
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])


def with_header(file: Path, header: bytes) -> bytes:
    """The file with another header before the same tensors."""
    data = file.read_bytes()
    rest = data[8 + int.from_bytes(data[:8], "little") :]
    return len(header).to_bytes(8, "little") + header + rest


def small(header: dict) -> dict:
    """The first tensors of a header: enough to lie about."""
    return dict(list(header.items())[:4])


def broken(folder: Path, name: str, data: bytes, *calls: Callable[[Path], object]) -> None:
    """Calls on a folder, one of whose files is replaced for the time being."""
    path = folder / name
    kept = path.read_bytes() if path.exists() else None
    path.write_bytes(data)
    before = files_under(folder)
    try:
        for call in calls:
            holds(lambda call=call: call(folder), 1, 2)
        assert files_under(folder) == before
    finally:
        path.unlink() if kept is None else path.write_bytes(kept)


@FUZZ
@given(st.data())
def test_headers(hybrid: Path, data: st.DataObject) -> None:
    changed = data.draw(mutated(small(header_of(hybrid / ONE_FILE))))
    text = with_header(hybrid / ONE_FILE, json.dumps(changed).encode())
    broken(hybrid, ONE_FILE, text, find_tensors, Checkpoint.open)


@FUZZ
@given(st.binary(max_size=40) | st.sampled_from([b"\xff" * 8, b"[" * 10**5]))
def test_any_bytes_as_weights(hybrid: Path, data: bytes) -> None:
    broken(hybrid, ONE_FILE, data, find_tensors, Checkpoint.open)
    broken(hybrid, ONE_FILE, len(data).to_bytes(8, "little") + data, find_tensors, Checkpoint.open)


@FUZZ
@given(st.data())
def test_indices(hybrid: Path, data: st.DataObject) -> None:
    names = list(small(header_of(hybrid / ONE_FILE)))
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(names, ONE_FILE)}
    changed = data.draw(mutated(index))
    broken(hybrid, INDEX, json.dumps(changed).encode(), find_tensors)


def test_an_index_leads_nowhere_else(hybrid: Path, tmp_path: Path) -> None:
    shutil.copytree(hybrid, tmp_path / "in")
    (tmp_path / "in" / ONE_FILE).rename(tmp_path / ONE_FILE)
    name = next(name for name in header_of(tmp_path / ONE_FILE) if name != "__metadata__")
    for file in (f"../{ONE_FILE}", str(tmp_path / ONE_FILE), "a/../../x", "", "."):
        (tmp_path / "in" / INDEX).write_text(json.dumps({"weight_map": {name: file}}))
        with pytest.raises(IntegrityError, match="outside"):
            find_tensors(tmp_path / "in")


@FUZZ
@given(st.data())
def test_configs_of_converted_checkpoints(hybrid: Path, data: st.DataObject) -> None:
    config = json.loads((hybrid / "config.json").read_bytes())
    changed = json.dumps(data.draw(mutated(config))).encode()
    broken(hybrid, "config.json", changed, inspect_checkpoint)


@settings(FUZZ, max_examples=max(FUZZ.max_examples // 5, 1))  # each is a whole fetch
@given(st.data())
def test_bases(base: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """What fetching a model makes of a source: the tree, or what is wrong with it."""
    name = data.draw(
        st.sampled_from(["config.json", "generation_config.json", "tokenizer_config.json"])
    )
    changed = data.draw(mutated(json.loads((base / name).read_bytes())))
    text = data.draw(st.sampled_from([json.dumps(changed).encode(), b"", b"\xff", b"[]", b"{"]))
    home = tmp_path_factory.mktemp("home")

    def fetch(folder: Path) -> None:
        context = Context(LocalStore(home / "store"), home / "work")
        fetch_model(ModelSource(source=str(folder)), context)

    broken(base, name, text, fetch)


def test_the_command_says_so(hybrid: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(hybrid, folder)
    (folder / ONE_FILE).write_bytes(with_header(hybrid / ONE_FILE, b'{"a": {"dtype": "F32"}}'))
    result = layerwright("inspect", "checkpoint", cwd=tmp_path)
    assert (result.returncode, "Traceback" in result.stderr) == (1, False), result.stderr
    assert "model.safetensors" in result.stderr
