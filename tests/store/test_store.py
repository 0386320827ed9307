"""The two stores: one behaviour, held against a local folder and a real S3 server."""

import hashlib
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from s3_server import S3Server, client, s3_server
from tree_files import content, lay

from layerwright.tasks.errors import InputError, IntegrityError, StepError
from layerwright.tasks.store.base import Store
from layerwright.tasks.store.local import LocalStore
from layerwright.tasks.store.manifest import MANIFEST, parse_manifest
from layerwright.tasks.store.open import open_store
from layerwright.tasks.store.s3 import _DESCRIPTIONS, S3Store, s3_client

FILES = {"config.json": b'{"a": 1}', "weights/one.bin": bytes(range(256)) * 50, "empty": b""}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture
def s3(server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    return S3Store(f"s3://{server.bucket}/{tmp_path.name}", tmp_path / "cache")


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return LocalStore(tmp_path / "store")
    return request.getfixturevalue("s3")


def tree(folder: Path, files: dict[str, bytes] = FILES) -> Path:
    return lay(folder, files)


def reopened(store: Store, tmp_path: Path) -> Store:
    """As another process would see it, on another machine in the case of S3."""
    return open_store(store.uri, tmp_path / "other cache")


def test_a_tree_comes_back_and_is_consumed(store: Store, tmp_path: Path) -> None:
    folder = tree(tmp_path / "in")
    ref = store.put_tree(folder)
    assert not folder.exists()
    assert ref.bytes == sum(map(len, FILES.values()))
    assert ref.uri == store.tree_uri(ref.sha256)
    assert content(reopened(store, tmp_path).open_tree(ref.sha256)) == FILES


def test_the_same_content_has_the_same_digest_everywhere(s3: S3Store, tmp_path: Path) -> None:
    local = LocalStore(tmp_path / "store").put_tree(tree(tmp_path / "a"))
    remote = s3.put_tree(tree(tmp_path / "b"))
    other = s3.put_tree(tree(tmp_path / "c", FILES | {"empty": b"x"}))
    assert local.sha256 == remote.sha256 != other.sha256


def test_a_tree_is_known_by_its_manifest(store: Store, tmp_path: Path) -> None:
    ref = store.put_tree(tree(tmp_path / "in"))
    manifest = store.read(f"trees/{ref.sha256}/{MANIFEST}")
    assert hashlib.sha256(manifest).hexdigest() == ref.sha256
    assert {entry["path"] for entry in json.loads(manifest)["files"]} == set(FILES)


def test_putting_twice_keeps_one(store: Store, tmp_path: Path) -> None:
    first = store.put_tree(tree(tmp_path / "in"))
    again = store.put_tree(tree(tmp_path / "in"))
    assert first == again
    assert not (tmp_path / "in").exists()
    assert content(store.open_tree(first.sha256)) == FILES


def test_keys_are_read_back_and_absent_ones_are_none(store: Store) -> None:
    assert store.read("results/none") is None
    store.write("results/one", b"1")
    store.write("results/one", b"2")
    assert store.read("results/one") == b"2"
    assert not store.has_tree("0" * 64)


def test_a_tree_that_is_not_there_is_refused(store: Store) -> None:
    with pytest.raises(IntegrityError, match="no such tree"):
        store.open_tree("0" * 64)


def test_a_manifest_that_names_another_folder_is_refused() -> None:
    for path in ("../x", "/etc/x", "a/../../x", "a\\..\\x", "", ".", "a\0"):
        data = json.dumps({"files": [{"path": path, "bytes": 0, "sha256": ""}]}).encode()
        with pytest.raises(IntegrityError, match="outside the tree"):
            parse_manifest(data, hashlib.sha256(data).hexdigest(), "here")


def test_a_manifest_of_another_form_is_refused() -> None:
    entry = {"path": "a", "bytes": 0, "sha256": ""}
    for files in (3, [3], [entry, entry], [entry | {"bytes": -1}], [entry | {"path": MANIFEST}]):
        data = json.dumps({"format": 1, "files": files}).encode()
        with pytest.raises(IntegrityError):
            parse_manifest(data, hashlib.sha256(data).hexdigest(), "here")


def test_a_link_is_no_file_of_a_tree(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    ref = store.put_tree(tree(tmp_path / "in"))
    path = store.open_tree(ref.sha256) / "config.json"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IntegrityError, match="file"):
        LocalStore(tmp_path / "store").open_tree(ref.sha256)


def test_a_planted_manifest_writes_nothing_outside(store: Store, tmp_path: Path) -> None:
    entry = {"path": "../../evil", "bytes": 4, "sha256": hashlib.sha256(b"evil").hexdigest()}
    data = json.dumps({"format": 1, "files": [entry]}).encode()
    sha256 = hashlib.sha256(data).hexdigest()
    store.write(f"trees/{sha256}/{MANIFEST}", data)
    store.write("evil", b"evil")
    with pytest.raises(IntegrityError, match="outside the tree"):
        reopened(store, tmp_path).open_tree(sha256)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("damage", ["byte", "length", "missing", "manifest"])
def test_damage_in_a_local_tree_is_found(tmp_path: Path, damage: str) -> None:
    store = LocalStore(tmp_path / "store")
    ref = store.put_tree(tree(tmp_path / "in"))
    path = store.open_tree(ref.sha256) / "weights" / "one.bin"
    data = bytearray(path.read_bytes())
    if damage == "byte":
        data[100] ^= 1
        path.write_bytes(data)
    elif damage == "length":
        path.write_bytes(data[:-1])
    elif damage == "missing":
        path.unlink()
    else:
        manifest = path.parents[1] / MANIFEST
        manifest.write_bytes(manifest.read_bytes() + b" ")
    with pytest.raises(IntegrityError):
        store.open_tree(ref.sha256)  # the process that verified it before
    with pytest.raises(IntegrityError):
        LocalStore(tmp_path / "store").open_tree(ref.sha256)


def test_a_damaged_local_tree_is_replaced_when_it_is_put_again(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    ref = store.put_tree(tree(tmp_path / "in"))
    (store.open_tree(ref.sha256) / "config.json").write_bytes(b'{"a": 2}')
    assert store.put_tree(tree(tmp_path / "in")) == ref
    assert content(store.open_tree(ref.sha256)) == FILES


def test_damage_in_a_remote_tree_is_found(s3: S3Store, server: S3Server, tmp_path: Path) -> None:
    ref = s3.put_tree(tree(tmp_path / "in"))
    key = f"{tmp_path.name}/trees/{ref.sha256}/config.json"
    client(server).put_object(Bucket=server.bucket, Key=key, Body=b'{"a": 2}')
    with pytest.raises(IntegrityError):
        s3.open_tree(ref.sha256)
    assert not (tmp_path / "cache" / ref.sha256 / "config.json").exists()


def test_damage_in_the_cache_of_a_remote_tree_is_repaired(s3: S3Store, tmp_path: Path) -> None:
    ref = s3.put_tree(tree(tmp_path / "in"))
    (s3.open_tree(ref.sha256) / "config.json").write_bytes(b'{"a": 2}')
    again = S3Store(s3.uri, s3.cache)
    assert content(again.open_tree(ref.sha256)) == FILES


def test_a_local_put_that_is_killed_leaves_no_tree(tmp_path: Path) -> None:
    """The process dies where the manifest is about to be written."""
    script = """
        import os, signal, sys
        from pathlib import Path
        import layerwright.tasks.store.local as store
        def die(path, data):
            os.kill(os.getpid(), signal.SIGKILL)
        store.write_atomically = die
        store.LocalStore(Path(sys.argv[1])).put_tree(Path(sys.argv[2]))
    """
    folder = tree(tmp_path / "in")
    command = [sys.executable, "-c", textwrap.dedent(script), tmp_path / "store", folder]
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run(command, cwd=root, env=os.environ).returncode == -9
    store = LocalStore(tmp_path / "store")
    sha256 = LocalStore(tmp_path / "elsewhere").put_tree(tree(tmp_path / "in")).sha256
    assert not store.has_tree(sha256)
    assert not (tmp_path / "store" / "trees" / sha256).exists()
    assert store.put_tree(tree(tmp_path / "in")).sha256 == sha256
    assert content(store.open_tree(sha256)) == FILES


def test_an_upload_that_breaks_off_leaves_no_tree_and_goes_on(
    s3: S3Store, server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload, sent = s3.client.upload_file, []

    def second_breaks(path: str, *args: object, **kwargs: object) -> None:
        if len(sent) == 1:
            raise OSError("connection lost")
        sent.append(Path(path).name)
        upload(path, *args, **kwargs)

    monkeypatch.setattr(s3.client, "upload_file", second_breaks)
    folder = tree(tmp_path / "in")
    with pytest.raises(StepError, match="connection lost"):
        s3.put_tree(folder)
    assert content(folder) == FILES  # nothing of ours is lost
    prefix = f"{tmp_path.name}/trees/"
    found = client(server).list_objects_v2(Bucket=server.bucket, Prefix=prefix)["Contents"]
    assert [Path(entry["Key"]).name for entry in found] == sent

    def count(path: str, *args: object, **kwargs: object) -> None:
        sent.append(Path(path).name)
        upload(path, *args, **kwargs)

    monkeypatch.setattr(s3.client, "upload_file", count)
    ref = s3.put_tree(folder)
    assert sorted(sent) == sorted(Path(name).name for name in FILES)  # each file once
    assert content(reopened(s3, tmp_path).open_tree(ref.sha256)) == FILES


def test_a_download_that_breaks_off_goes_on(
    s3: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = s3.put_tree(tree(tmp_path / "in"))
    download, taken = s3.client.download_file, []

    def third_breaks(bucket: str, key: str, path: str, **kwargs: object) -> None:
        if len(taken) == 2:
            Path(path).write_bytes(b"half")
            raise s3.client.exceptions.ClientError({"Error": {"Code": "500"}}, "GetObject")
        taken.append(key)
        download(bucket, key, path, **kwargs)

    monkeypatch.setattr(s3.client, "download_file", third_breaks)
    with pytest.raises(StepError):
        s3.open_tree(ref.sha256)

    def count(bucket: str, key: str, path: str, **kwargs: object) -> None:
        taken.append(key)
        download(bucket, key, path, **kwargs)

    monkeypatch.setattr(s3.client, "download_file", count)
    assert content(s3.open_tree(ref.sha256)).items() >= FILES.items()
    assert len(taken) == len(set(taken)) == len(FILES)  # what had arrived was not taken again


def test_wrong_credentials_are_told(
    s3: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    store = S3Store(s3.uri, tmp_path / "cache")
    with pytest.raises(StepError, match="cannot be written"):
        store.write("key", b"1")
    with pytest.raises(StepError, match="upload"):
        store.put_tree(tree(tmp_path / "in"))
    assert content(tmp_path / "in") == FILES


def test_addresses(tmp_path: Path, s3: S3Store) -> None:
    spaced = LocalStore(tmp_path / "with space")
    spaced.write("key", b"1")
    for address in (spaced.uri, str(spaced.root), spaced.root):
        assert open_store(address, tmp_path).read("key") == b"1"
    assert isinstance(open_store(s3.uri + "/", tmp_path), S3Store)
    with pytest.raises(InputError, match="S3"):
        open_store("s3://", tmp_path)


def test_a_second_client_parses_no_description_of_a_service_again(s3: S3Store) -> None:
    parsed = _DESCRIPTIONS.load_file.cache_info().misses
    assert parsed
    s3_client()
    assert _DESCRIPTIONS.load_file.cache_info().misses == parsed
