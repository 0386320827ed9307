"""What `layerwright gc` keeps, in a folder and in S3, with a real registry."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from layerwright_process import last_line, layerwright
from mlflow.tracking import MlflowClient
from s3_server import client, s3_server
from tiny_checkpoint import write_tiny_inputs

from layerwright.flows.command_line.cleaning import clean
from layerwright.tasks.errors import InputError
from layerwright.tasks.home import Home
from layerwright.tasks.store.base import Store
from layerwright.tasks.store.open import open_store

LATER = datetime.now(UTC) + timedelta(days=40)


@pytest.fixture(params=["folder", "s3"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Store]:
    if request.param == "folder":
        yield open_store(tmp_path / "store", tmp_path / "cache")
        return
    with s3_server(tmp_path / "s3") as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        client(server).create_multipart_upload(Bucket=server.bucket, Key="of/ours/trees/half")
        client(server).create_multipart_upload(Bucket=server.bucket, Key="of/others")
        yield open_store(f"s3://{server.bucket}/of/ours", tmp_path / "cache")


def tree(store: Store, folder: Path, text: str) -> str:
    folder.mkdir(parents=True)
    (folder / "weights").write_text(text)
    return store.put_tree(folder).sha256


def test_what_is_old_and_unneeded_goes_alone(store: Store, tmp_path: Path) -> None:
    checkpoint, base, named, loose = (
        tree(store, tmp_path / name, name) for name in ("checkpoint", "base", "named", "loose")
    )
    store.write("results/evaluate-1", json.dumps({"tree": {"sha256": named}}).encode())
    registry = f"sqlite:///{tmp_path}/mlflow.db"
    mlflow = MlflowClient(registry, registry_uri=registry)
    mlflow.create_registered_model("m")
    tags = {"layerwright.manifest_sha256": checkpoint, "layerwright.base_sha256": base}
    mlflow.create_model_version("m", store.tree_uri(checkpoint), tags=tags)

    def cleaned(**options) -> dict:
        return clean(Home(tmp_path), store.uri, registry, days=30, **options).model_dump()

    young = cleaned(dry=False)
    assert young["removed"] == {}, "everything is younger than 30 days"
    assert young["kept"][checkpoint] == "m 1"

    foreseen = cleaned(dry=True, now=LATER)
    assert set(foreseen["removed"]) == {named, loose}
    assert store.has_tree(loose), "a dry run removes nothing"
    done = cleaned(dry=False, now=LATER)
    assert done["removed"] == foreseen["removed"]
    assert done["results"] == 1
    assert not store.has_tree(loose)
    assert list(store.entries(f"trees/{loose}/")) == []
    for kept in (checkpoint, base):
        assert (store.open_tree(kept) / "weights").is_file()
    assert done["unfinished"] == (1 if store.uri.startswith("s3:") else 0), "others' stay"
    assert cleaned(dry=False, now=LATER)["removed"] == {}


def test_a_result_that_is_kept_keeps_its_trees(tmp_path: Path) -> None:
    store = open_store(tmp_path / "home" / "store", tmp_path)
    named = tree(store, tmp_path / "named", "named")
    for path in (tmp_path / "home" / "store" / "trees").rglob("*"):
        os.utime(path, (0, 0))
    store.write("results/convert-1", json.dumps({"sha256": named}).encode())
    done = clean(Home(tmp_path / "home"), None, None, days=30, dry=False)
    assert done.removed == {}
    assert done.kept == {named: "the result convert-1"}


def test_a_store_goes_with_its_registry(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="registry"):
        clean(Home(tmp_path), "s3://bucket/prefix", None, days=30, dry=True)


def test_nothing_goes_beside_a_run(tmp_path: Path) -> None:
    write_tiny_inputs(tmp_path)
    assert layerwright("convert", "recipe.yaml", cwd=tmp_path).returncode == 0
    record = next((tmp_path / ".layerwright" / "runs").glob("*/run.json"))
    held = record.read_text()
    record.write_text(held.replace('"state": "accepted"', '"state": "running"'))
    refused = layerwright("gc", "--days", "0", cwd=tmp_path)
    assert refused.returncode == 2
    assert "under way" in refused.stderr
    run = record.parent.name
    gone = layerwright("gc", "--days", "0", "--abandon", run, "--json", cwd=tmp_path)
    assert gone.returncode == 0, gone.stderr
    found = last_line(gone)
    assert found["removed"]
    assert "tiny-hybrid 1" in found["kept"].values(), "what is registered stays"
