"""`layerwright export` and `layerwright inspect`, as a user runs them."""

from export.checkpoints import FULL, REMOVED, SINKS, write_hybrid_checkpoint
from facts import missing
from layerwright_process import last_line, layerwright


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
