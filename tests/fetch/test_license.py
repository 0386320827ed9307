"""The base's license: where its files say it, and None where they do not."""

import json
from pathlib import Path

import pytest
from fetch.tiny_gguf import write_gguf
from tiny_checkpoint import write_checkpoint

from layerwright.tasks.context import Context
from layerwright.tasks.fetch.model import fetch_model
from layerwright.tasks.fetch.provenance import license_of
from layerwright.tasks.recipe.model import ModelSource
from layerwright.tasks.store.local import LocalStore


def fetched(tmp_path: Path, source: str = "local:model") -> Path:
    context = Context(store=LocalStore(tmp_path / "store"), workdir=tmp_path / "work")
    context.workdir.mkdir(exist_ok=True)
    ref = fetch_model(ModelSource(source=source), context, str(tmp_path))
    return context.store.open_tree(ref.sha256)


@pytest.mark.parametrize(
    ("readme", "said"),
    [
        ("---\nlicense: mit\ntags: [x]\n---\n# Model\n", "mit"),
        ("---\ntags: [x]\n---\n", None),
        ("# Model\nlicense: mit\n", None),
        ("---\nlicense: [a, b]\n---\n", None),
        ("---\n- a list\n---\n", None),
        ("---\nlicense: {broken\n---\n", None),
    ],
)
def test_a_readme_says_it_at_its_head(tmp_path: Path, readme: str, said: str | None) -> None:
    (tmp_path / "README.md").write_text(readme)
    assert license_of(tmp_path) == said


def test_it_goes_with_the_model_and_its_text_too(tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "model")
    assert "license" not in json.loads((fetched(tmp_path) / "source.json").read_text())
    (model / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    (model / "LICENSE").write_text("the terms")
    folder = fetched(tmp_path)
    record = json.loads((folder / "source.json").read_text())
    assert record["license"] == "apache-2.0"
    assert {"LICENSE", "README.md"} <= {entry["path"] for entry in record["files"]}
    assert (folder / "LICENSE").read_text() == "the terms"
    assert not (folder / "README.md").exists(), "it describes another model than the converted one"


def test_a_gguf_file_says_it_in_its_metadata(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", license="apache-2.0")
    folder = fetched(tmp_path, "local:tiny.gguf")
    assert json.loads((folder / "source.json").read_text())["license"] == "apache-2.0"
    write_gguf(tmp_path / "tiny.gguf")
    folder = fetched(tmp_path, "local:tiny.gguf")
    assert "license" not in json.loads((folder / "source.json").read_text())
