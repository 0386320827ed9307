"""Wheels through the real pip, from a folder that is the whole index."""

import subprocess
import zipfile
from pathlib import Path

import pytest
from fetch.tiny_wheel import write_wheel

from layerwright.tasks.errors import InputError
from layerwright.tasks.fetch.sources import parse
from layerwright.tasks.fetch.sources.pypi import PypiSource

FILES = {
    "pkg/__init__.py": b"raise SystemExit('no code of a wheel may run')",
    "pkg/data/one.txt": b"one",
    "pkg/data/deep/two.txt": b"two",
    "pkg/other/three.txt": b"three",
}


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "index"
    write_wheel(folder, FILES)
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


def fetched(source: PypiSource, work: Path) -> dict[str, bytes]:
    folder = source.fetch(work)
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    return {name: path.read_bytes() for name, path in files.items()}


def test_probe_and_fetch_without_dependencies(index: Path, tmp_path: Path) -> None:
    source = parse("pypi:Tiny_Thing==1.0", None, patterns=("*.txt",))
    assert source.size_bytes() == next(index.glob("*.whl")).stat().st_size
    assert list(tmp_path.iterdir()) == [index]  # the probe left nothing
    names = ("pkg/data/one.txt", "pkg/data/deep/two.txt", "pkg/other/three.txt")
    assert fetched(source, tmp_path / "work") == {name: FILES[name] for name in names}


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("pkg/data", {"one.txt", "deep/two.txt"}),
        ("pkg/data/one.txt", {"one.txt"}),
        ("pkg/data/*.txt", {"one.txt", "deep/two.txt"}),
        ("pkg/*/three.txt", {"other/three.txt"}),
    ],
)
def test_a_path_inside_the_wheel(index: Path, tmp_path: Path, path: str, names: set[str]) -> None:
    source = parse(f"pypi:tiny-thing==1.0/{path}", None)
    assert set(fetched(source, tmp_path / "work")) == names


def test_identity_is_the_pin_and_needs_no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", None)
    assert parse("pypi:Tiny_Thing==1.00", None).identity() == "pypi:tiny-thing==1.0"
    assert parse("pypi:tiny-thing==1.0/a/b", None).identity() == "pypi:tiny-thing==1.0/a/b"


def test_what_the_index_does_not_have_is_told(index: Path, tmp_path: Path) -> None:
    for source in ("pypi:tiny-thing==2.0", "pypi:no-such-thing==1.0"):
        with pytest.raises(InputError, match="wheel"):
            parse(source, None).size_bytes()
        with pytest.raises(InputError, match="wheel"):
            parse(source, None).fetch(tmp_path / "work")
    with pytest.raises(InputError, match="pkg/nowhere"):
        parse("pypi:tiny-thing==1.0/pkg/nowhere", None).fetch(tmp_path / "work")


def test_a_source_distribution_is_not_built(index: Path) -> None:
    import tarfile

    (index / "setup.py").write_text("raise SystemExit('code of the package ran')")
    with tarfile.open(index / "only-source-1.0.tar.gz", "w:gz") as archive:
        archive.add(index / "setup.py", "only-source-1.0/setup.py")
    with pytest.raises(InputError, match="wheel"):
        parse("pypi:only-source==1.0", None).size_bytes()


def test_a_second_attempt_goes_on_from_the_wheel(index: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    half = work / "wheel.of-a-killed-attempt.partial"
    half.mkdir(parents=True)
    (half / "tiny_thing-1.0-py3-none-any.whl").write_bytes(b"PK half of it")
    source = "pypi:tiny-thing==1.0/pkg/data"
    first = fetched(parse(source, None), work)
    assert first == {"one.txt": b"one", "deep/two.txt": b"two"}
    assert not half.exists()
    # as if killed while unpacking: one file is half there, and the index is gone meanwhile
    (work / "files" / "one.txt").rename(work / "files" / ".one.txt.partial")
    (work / "files" / ".one.txt.partial").write_bytes(b"o")
    next(index.glob("*.whl")).unlink()
    assert fetched(parse(source, None), work) == first


def test_a_wheel_cannot_write_outside(index: Path, tmp_path: Path) -> None:
    wheel = write_wheel(index, {"pkg/a.txt": b"1"}, version="6.6")
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("pkg/../../../evil.txt", b"evil")
    with pytest.raises(InputError, match="folder"):
        parse("pypi:tiny-thing==6.6", None, patterns=("*.txt",)).fetch(tmp_path / "work")
    assert not list(tmp_path.rglob("evil.txt"))
