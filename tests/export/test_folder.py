"""The plain folder with its own code: whole, the checkpoint's, and checked by loading it."""

import pytest
from export.checkpoints import FULL, LINEAR, SINKS, write_hybrid_checkpoint

from layerwright.tasks.errors import IntegrityError
from layerwright.tasks.export.folder import export_transformers


def test_the_folder_is_the_checkpoint(tmp_path):
    write_hybrid_checkpoint(tmp_path / "hybrid", [SINKS, FULL, LINEAR, FULL])
    (tmp_path / "hybrid/manifest.json").write_text("{}")
    result = export_transformers(tmp_path / "hybrid", tmp_path / "deep/out")
    assert result.relative_rms <= 1e-5
    written = {p.name: p.read_bytes() for p in (tmp_path / "deep/out").iterdir()}
    expected = {p.name: p.read_bytes() for p in (tmp_path / "hybrid").iterdir()}
    assert written == {n: data for n, data in expected.items() if n != "manifest.json"}
    # a change in the export must not reach the store
    (tmp_path / "deep/out/config.json").write_text("changed")
    assert (tmp_path / "hybrid/config.json").read_bytes() == expected["config.json"]
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["out"]


def test_a_readme_goes_with_it(tmp_path):
    write_hybrid_checkpoint(tmp_path / "hybrid", [SINKS, FULL, LINEAR, FULL])
    export_transformers(tmp_path / "hybrid", tmp_path / "out", "# a card")
    assert (tmp_path / "out/README.md").read_text() == "# a card"
    assert not (tmp_path / "hybrid/README.md").exists()


def without_placement(folder):
    (folder / "layerwright_placement.py").unlink()


def without_the_linear_map(folder):
    code = folder / "layerwright_layer.py"
    source = code.read_text()
    map_of = "hidden_BTD + self.linear(hidden_BTD)"
    assert map_of in source
    code.write_text(source.replace(map_of, "hidden_BTD"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [(without_placement, "does not load"), (without_the_linear_map, "logits differ")],
)
def test_code_that_does_not_fit_fails_and_leaves_nothing(tmp_path, damage, message):
    """It is the code inside the checkpoint that is run."""
    write_hybrid_checkpoint(tmp_path / "hybrid", [SINKS, FULL, LINEAR, FULL])
    damage(tmp_path / "hybrid")
    with pytest.raises(IntegrityError, match=message):
        export_transformers(tmp_path / "hybrid", tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["hybrid"]
