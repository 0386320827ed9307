"""`layerwright export` and `layerwright inspect`, as a user runs them; what is registered."""

import os
import subprocess
import sys
from pathlib import Path

import mlflow
from export.checkpoints import FULL, REMOVED, SINKS, write_hybrid_checkpoint
from facts import missing
from layerwright_process import last_line, layerwright
from tiny_checkpoint import write_tiny_inputs


def test_export_stock_and_inspect(tmp_path):
    write_hybrid_checkpoint(tmp_path / "hybrid", [FULL, REMOVED, REMOVED, FULL])
    arguments = ("export", "hybrid", "--to", "stock", "--out", "out")
    result = layerwright(*arguments, "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    exported = last_line(result)
    assert exported.pop("relative_rms") <= 1e-5
    assert exported == {"to": "stock", "folder": "out", "model_type": "llama", "layers": 2}
    again = layerwright(*arguments, cwd=tmp_path)
    assert again.returncode == 2
    assert not missing(again.stderr, "error: out")
    found = layerwright("inspect", "hybrid", "--tokens", "64", "--tokens", "512", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert "1-2" in found.stdout
    assert "stock       llama" in found.stdout


def test_refusals_say_why(tmp_path):
    write_hybrid_checkpoint(tmp_path / "hybrid", [SINKS, FULL, FULL, SINKS])
    refused = layerwright("export", "hybrid", "--to", "stock", "--out", "out", cwd=tmp_path)
    assert refused.returncode == 2
    for layer in (0, 3):
        assert not missing(refused.stderr, f"layer {layer}: attention sinks")
    assert not (tmp_path / "out").exists()
    unknown = layerwright("inspect", "nowhere", cwd=tmp_path)
    assert unknown.returncode == 2
    assert not missing(unknown.stderr, "'nowhere'", "folder", "run")


SERVE = """
import sys, torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
assert type(model).__name__ == "GraniteSWAForCausalLM", type(model)
assert model.generate(torch.arange(100)[None], max_new_tokens=4, do_sample=False).shape == (1, 104)
"""


def test_a_plan_of_windows_is_registered_without_custom_code(tmp_path: Path) -> None:
    """From the recipe to a model that Transformers serves by itself, and measured again after."""
    recipe = write_tiny_inputs(tmp_path)
    recipe.write_text(
        recipe.read_text()
        .replace("{name: streaming, sinks: 4, window: 28}", "{name: window, window: 32}")
        .replace("steps: 6\n", "steps: 6\n      parts: [sinks]\n      parts_learning_rate: 0.2\n")
    )
    result = layerwright("convert", "recipe.yaml", "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    run = last_line(result)
    assert set(run["plan"].values()) == {"keep", "window"}
    assert run["registered"]["model_type"] == "granite_swa"
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/.layerwright/mlflow.db")
    version = client.get_model_version("tiny-hybrid", "1")
    folder = Path(version.source.removeprefix("file://"))
    assert folder.name == version.tags["layerwright.served_sha256"]
    assert not list(folder.glob("*.py"))
    code = [sys.executable, "-I", "-c", SERVE, str(folder)]
    subprocess.run(code, check=True, env=os.environ | {"HF_HUB_OFFLINE": "1"}, cwd=tmp_path)
    cleaned = layerwright("gc", "--days", "0", "--json", cwd=tmp_path)
    assert cleaned.returncode == 0, cleaned.stderr
    assert (folder / "manifest.json").is_file(), "what is registered stays"
    again = layerwright("requalify", "tiny-hybrid/1", "recipe.yaml", "--json", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
