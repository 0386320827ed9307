"""How sources are written, and what they have in common."""

import os
from pathlib import Path

import pytest
from facts import says

from layerwright.tasks.errors import InputError, StepError
from layerwright.tasks.fetch.sources import model_source, parse, text_source
from layerwright.tasks.fetch.sources.local import LocalSource
from layerwright.tasks.recipe.data import TextSource
from layerwright.tasks.recipe.model import ModelSource


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "root" / "corpus"
    for name, data in {"a.txt": "one", "sub/b.txt": "two", "c.md": "three", ".git/x": "4"}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(data)
    return root


@pytest.mark.parametrize(
    "source",
    ["pypi:dist", "pypi:dist>=1", "pypi:dist==1.*", "pypi:==1", "hf:owner/name", "hf:name@main",
     "s3:bucket", "s3://", "local:", "gs://bucket/x", "https://example.org/x", "pypy:dist==1"],
)  # fmt: skip
def test_a_source_that_cannot_be_read_names_the_accepted_form(source: str) -> None:
    with pytest.raises(InputError) as error:
        parse(source, None)
    assert any(form in str(error.value) for form in ("pypi:dist==", "hf:owner", "s3://", "local:"))


def test_an_unknown_scheme_lists_all_forms() -> None:
    with pytest.raises(InputError) as error:
        parse("gs://bucket/x", None, purpose="text")
    for form in ("hf:owner/name@revision", "pypi:dist==version[/path]", "s3://bucket/prefix",
                 "local:PATH", "python-docs"):  # fmt: skip
        assert form in str(error.value)


def test_python_docs_are_no_model() -> None:
    with pytest.raises(InputError, match="model"):
        model_source(ModelSource(source="python-docs"), None)


def test_a_path_is_a_local_source_from_data_root(folder: Path) -> None:
    for source, root in (("corpus", folder.parent), ("local:corpus", folder.parent),
                         (str(folder), None)):  # fmt: skip
        found = parse(source, root and str(root))
        assert isinstance(found, LocalSource)
        assert found.listing(Path()) == {"a.txt": 3, "c.md": 5, "sub/b.txt": 3}


def test_globs_choose_and_sizes_add_up(folder: Path, tmp_path: Path) -> None:
    source = text_source(TextSource(source=str(folder)), None)
    assert source.size_bytes() == 6
    fetched = source.fetch(tmp_path / "work")
    assert (fetched / "a.txt").read_text() == "one"
    assert (fetched / "sub" / "b.txt").read_text() == "two"
    assert not (fetched / "c.md").exists()
    one = text_source(TextSource(source=str(folder), files=("sub/*",)), None)
    assert one.choose(one.listing(Path())) == ["sub/b.txt"]


def test_a_single_file_is_a_source(folder: Path, tmp_path: Path) -> None:
    source = parse("local:a.txt", str(folder))
    assert source.size_bytes() == 3
    assert [p.name for p in source.fetch(tmp_path / "work").iterdir()] == ["a.txt"]


def test_what_is_not_there_is_told_before_anything_starts(folder: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        parse("local:nowhere", str(folder)).size_bytes()
    with pytest.raises(InputError, match=r"a\.txt, c\.md"):
        parse("local:.", str(folder), patterns=("*.parquet",)).size_bytes()


def test_pickled_weights_are_refused_before_anything_starts(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(InputError, match=says("pytorch_model.bin", "code")):
        model_source(ModelSource(source=str(folder)), None).size_bytes()


def test_local_identity_is_of_the_content_not_of_the_place(folder: Path, tmp_path: Path) -> None:
    def identity(path: Path, *patterns: str) -> str:
        return parse(str(path), None, patterns=patterns or ("*",)).identity()

    first = identity(folder)
    moved = folder.rename(tmp_path / "moved")
    assert identity(moved) == first
    assert identity(moved, "*.txt") != first
    stat = (moved / "a.txt").stat()
    (moved / "a.txt").write_text("One")  # same size, and the same time below
    os.utime(moved / "a.txt", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    changed = identity(moved)
    assert changed != first
    (moved / "a.txt").rename(moved / "z.txt")
    assert identity(moved) not in (first, changed)


class Hostile(LocalSource):
    """A source whose listing is what an archive or a server might send."""

    names: tuple[str, ...] = ()
    cut = False

    def listing(self, work: Path) -> dict[str, int]:
        return dict.fromkeys(self.names, 4)

    def take(self, name, target, work, tick) -> None:
        target.write_bytes(b"ev" if self.cut else b"evil")


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "a\\..\\evil"])
def test_no_file_leaves_its_folder(name: str, tmp_path: Path) -> None:
    source = Hostile("local:x", None, ("*",), ("*",), "text")
    source.names = (name,)
    with pytest.raises(InputError, match="folder"):
        source.fetch(tmp_path / "work")
    assert not list(tmp_path.rglob("evil"))


def test_a_cut_off_file_is_never_taken_for_a_whole_one(tmp_path: Path) -> None:
    source = Hostile("local:x", None, ("*",), ("*",), "text")
    source.names, source.cut = ("one", "two"), True
    with pytest.raises(StepError, match="2"):
        source.fetch(tmp_path / "work")
    assert not (tmp_path / "work" / "files" / "one").exists()
    source.cut = False
    folder = source.fetch(tmp_path / "work")
    assert sorted(p.name for p in folder.iterdir()) == ["one", "two"]
    assert (folder / "one").read_bytes() == b"evil"
