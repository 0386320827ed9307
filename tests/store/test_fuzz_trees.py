"""Broken manifests and stores: an IntegrityError, and nothing outside their folder is touched."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import FUZZ, files_under, holds, mutated

from layerwright.tasks.errors import IntegrityError
from layerwright.tasks.store.local import LocalStore
from layerwright.tasks.store.manifest import MANIFEST, build_manifest, parse_manifest


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trees")
    (folder / "outside").write_text("outside")
    (folder / "made" / "weights").mkdir(parents=True)
    (folder / "made" / "config.json").write_text("{}")
    (folder / "made" / "weights" / "one.bin").write_bytes(b"12345")
    return folder


SHA256 = hashlib.sha256(b"12345").hexdigest()
DOCUMENT = {
    "format": 1,
    "files": [
        {"path": "config.json", "bytes": 2, "sha256": hashlib.sha256(b"{}").hexdigest()},
        {"path": "weights/one.bin", "bytes": 5, "sha256": SHA256},
    ],
}


def test_the_document_is_a_manifest(folder: Path) -> None:
    assert json.loads(build_manifest(folder / "made")) == DOCUMENT


def refused_or_inside(folder: Path, data: bytes) -> None:
    """A manifest that bears its own digest, as somebody who may write to a store could plant."""
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        files = parse_manifest(data, sha256, "here")
    except IntegrityError:
        files = ()
    for file in files:
        assert (folder / "made" / file.path).resolve().is_relative_to(folder / "made")
        assert file.path != MANIFEST
    store = LocalStore(folder)
    store.write(f"trees/{sha256}/{MANIFEST}", data)
    before = files_under(folder)
    holds(lambda: store.open_tree(sha256), 1)
    assert files_under(folder) == before
    store.remove([f"trees/{sha256}/{MANIFEST}"])


@FUZZ
@given(mutated(DOCUMENT))
def test_changed_manifests(folder: Path, document: object) -> None:
    refused_or_inside(folder, json.dumps(document).encode())


@FUZZ
@given(st.binary(max_size=60) | st.sampled_from([b"[" * 10**5, b'{"files":' * 10**4, b"null"]))
def test_any_bytes(folder: Path, data: bytes) -> None:
    refused_or_inside(folder, data)
