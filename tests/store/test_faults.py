"""What happens to trees when the store fails: a real S3 server that is killed, refuses or lies."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from facts import says
from s3_server import DOMAIN, Keys, S3Server, client, s3_server
from tree_files import content, lay

from layerwright.tasks.errors import IntegrityError, StepError
from layerwright.tasks.store.manifest import MANIFEST
from layerwright.tasks.store.s3 import S3Store

ROOT = Path(__file__).resolve().parents[2]
LARGE = bytes(range(256)) * (160 * 2**10)  # 40 MB: three parts of a multipart upload
FILES = {"a.json": b'{"a": 1}', "weights/large.bin": LARGE, "z.json": b"{}"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture
def opened(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., S3Store]:
    """A store under a prefix of this test's own, as a new process would open it."""

    def open_as(keys: Keys | None = None, *, cache: str = "cache", bucket: str = "") -> S3Store:
        for name, value in server.environment(keys).items():
            monkeypatch.setenv(name, value)
        return S3Store(f"s3://{bucket or server.bucket}/{tmp_path.name}", tmp_path / cache)

    return open_as


def written(folder: Path, files: dict[str, bytes] = FILES) -> Path:
    return lay(folder, files)


def objects(server: S3Server, prefix: str) -> dict[str, str]:
    """File name to key of every object under a prefix, as anybody sees them."""
    answer = client(server).list_objects_v2(Bucket=server.bucket, Prefix=f"{prefix}/")
    return {Path(entry["Key"]).name: entry["Key"] for entry in answer.get("Contents", [])}


def kill_after(store: S3Store, server: S3Server, operation: str, count: int) -> None:
    """Kill the server once it has answered an operation so many times."""
    answered: list[str] = []

    def answer(**_: object) -> None:
        answered.append(operation)
        if len(answered) == count:
            server.kill()

    store.client.meta.events.register(f"after-call.s3.{operation}", answer)


def watched(store: S3Store, operation: str) -> list[str]:
    """The keys of later calls of an operation."""
    seen: list[str] = []

    def note(params: dict, **_: object) -> None:
        seen.append(Path(params["Key"]).name)

    store.client.meta.events.register(f"provide-client-params.s3.{operation}", note)
    return seen


def test_a_server_killed_during_an_upload_has_no_half_tree(
    server: S3Server, opened: Callable[..., S3Store], tmp_path: Path
) -> None:
    folder = written(tmp_path / "in")
    store = opened()
    kill_after(store, server, "UploadPart", 1)
    with pytest.raises(StepError, match=r"upload to .* failed"):
        store.put_tree(folder)
    assert content(folder) == FILES, "nothing of ours is lost"
    server.start()
    assert objects(server, tmp_path.name).keys() == {"a.json"}
    again = opened()
    small, large = watched(again, "PutObject"), watched(again, "CreateMultipartUpload")
    ref = again.put_tree(folder)
    assert (small, large) == (["z.json", MANIFEST], ["large.bin"]), "a.json was there already"
    assert content(opened(cache="other").open_tree(ref.sha256)) == FILES


def test_a_server_killed_during_a_download_leaves_nothing_half(
    server: S3Server, opened: Callable[..., S3Store], tmp_path: Path
) -> None:
    ref = opened().put_tree(written(tmp_path / "in"))
    store = opened()
    kill_after(store, server, "GetObject", 4)  # manifest, a.json, two ranges of the large file
    with pytest.raises(StepError, match=says("large.bin")):
        store.open_tree(ref.sha256)
    assert content(store.cache / ref.sha256) == {"a.json": FILES["a.json"]}
    assert not (store.cache / ref.sha256 / MANIFEST).exists()
    server.start()
    again = opened()
    taken = watched(again, "HeadObject")
    assert content(again.open_tree(ref.sha256)) == FILES
    assert "a.json" not in taken, "it was there already"


def test_wrong_credentials_and_a_missing_bucket_are_told(
    server: S3Server, opened: Callable[..., S3Store], tmp_path: Path
) -> None:
    folder = written(tmp_path / "in", {"a": b"1"})
    told = {
        "SignatureDoesNotMatch|Forbidden": opened(Keys(server.keys.access_key, "wrong")),
        "InvalidAccessKeyId|Forbidden": opened(Keys("nobody", "wrong")),
        "NoSuchBucket|AccessDenied|Forbidden": opened(server.reader, bucket="no-such-bucket"),
    }
    for message, store in told.items():
        for call in (
            lambda store: store.read("key"),
            lambda store: store.write("key", b"1"),
            lambda store: store.has_tree("0" * 64),
            lambda store: store.open_tree("0" * 64),
            lambda store: store.put_tree(folder),
            lambda store: list(store.entries("trees/")),
            lambda store: store.remove_unfinished(datetime.now(UTC)),
        ):
            with pytest.raises(StepError, match=message):
                call(store)
    assert content(folder) == {"a": b"1"}


def test_a_reader_reads_and_is_refused_writes(
    server: S3Server, opened: Callable[..., S3Store], tmp_path: Path
) -> None:
    ref = opened().put_tree(written(tmp_path / "in", {"a": b"1"}))
    folder = written(tmp_path / "in", {"b": b"2"})
    reader = opened(server.reader)
    assert content(reader.open_tree(ref.sha256)) == {"a": b"1"}
    refused = {
        "cannot be written": lambda: reader.write("key", b"1"),
        "upload to": lambda: reader.put_tree(folder),
        "cannot be deleted": lambda: reader.remove([f"trees/{ref.sha256}/{MANIFEST}"]),
    }
    for message, call in refused.items():
        with pytest.raises(StepError, match=message):
            call()
    assert content(folder) == {"b": b"2"}
    assert opened().has_tree(ref.sha256)


def test_a_corrupted_object_is_told_and_made_good(
    server: S3Server, opened: Callable[..., S3Store], tmp_path: Path
) -> None:
    files = {"a": b"12345678", "b": b"1"}
    ref = opened().put_tree(written(tmp_path / "in", files))
    found = objects(server, tmp_path.name)
    client(server).put_object(Bucket=server.bucket, Key=found["a"], Body=b"12345679")
    with pytest.raises(IntegrityError, match=says(f"{ref.sha256}/a", "delete")):
        opened().open_tree(ref.sha256)
    assert content(tmp_path / "cache") == {}
    # as the message says: then the tree does not exist, and whoever makes it again brings it whole
    for name in ("a", MANIFEST):
        client(server).delete_object(Bucket=server.bucket, Key=found[name])
    assert not opened().has_tree(ref.sha256)
    assert opened().put_tree(written(tmp_path / "in", files)) == ref
    assert content(opened().open_tree(ref.sha256)) == files


def test_an_object_of_the_same_size_is_not_taken_for_ours(
    server: S3Server, opened: Callable[..., S3Store], tmp_path: Path
) -> None:
    files = {"a": b"12345678", "b": b"1"}
    ref = opened().put_tree(written(tmp_path / "in", files))
    key = objects(server, tmp_path.name)["a"]
    client(server).put_object(Bucket=server.bucket, Key=key, Body=b"12345679")
    assert opened().put_tree(written(tmp_path / "in", files)) == ref
    assert content(opened().open_tree(ref.sha256)) == files


def test_a_removed_object_is_told(
    server: S3Server, opened: Callable[..., S3Store], tmp_path: Path
) -> None:
    ref = opened().put_tree(written(tmp_path / "in", {"a": b"1", "b": b"2"}))
    client(server).delete_object(Bucket=server.bucket, Key=objects(server, tmp_path.name)["b"])
    store = opened()
    with pytest.raises(StepError, match=says(f"{ref.sha256}/b")):
        store.open_tree(ref.sha256)
    assert content(store.cache / ref.sha256) == {"a": b"1"}
    assert not (store.cache / ref.sha256 / MANIFEST).exists()


def limited(script: str, *arguments: object, file_bytes: int) -> subprocess.CompletedProcess[str]:
    """Run a script that cannot write longer files, as on a disk that is full."""
    text = textwrap.dedent(script)
    return subprocess.run(
        [sys.executable, "-c", text, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes)),
        capture_output=True,
        text=True,
    )


TOLD = """
    import sys
    from pathlib import Path
    from layerwright.tasks.errors import StepError
    from layerwright.tasks.store.s3 import S3Store
    try:
        {call}
    except StepError as error:
        raise SystemExit(str(error))
"""


def test_a_full_disk_during_a_download_is_told_and_gone_on_from(
    server: S3Server, opened: Callable[..., S3Store], tmp_path: Path
) -> None:
    store = opened()
    ref = store.put_tree(written(tmp_path / "in"))
    call = "S3Store(sys.argv[1], Path(sys.argv[2])).open_tree(sys.argv[3])"
    result = limited(
        TOLD.format(call=call), store.uri, store.cache, ref.sha256, file_bytes=8_000_000
    )
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert "large.bin" in result.stderr
    assert "File too large" in result.stderr
    assert content(store.cache / ref.sha256) == {"a.json": FILES["a.json"]}
    taken = watched(store, "HeadObject")
    assert content(store.open_tree(ref.sha256)) == FILES
    assert "a.json" not in taken


def test_gc_takes_what_killed_downloads_left(
    server: S3Server, opened: Callable[..., S3Store], tmp_path: Path
) -> None:
    store = opened()
    left = written(store.cache, {"sha/.large.bin.0a1b2c3d.partial.4e5F": b"half"})
    later = datetime.now(UTC) + timedelta(days=40)
    for dry in (True, False):
        assert store.remove_unfinished(later, dry=dry) == 1
        assert bool(content(left)) is dry


@pytest.mark.parametrize("style", ["path", "virtual"])
def test_the_addressing_style_of_the_aws_config_is_used(
    server: S3Server,
    opened: Callable[..., S3Store],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    style: str,
) -> None:
    port = server.endpoint.rsplit(":", 1)[1]
    host = {"path": DOMAIN, "virtual": f"{server.bucket}.{DOMAIN}"}[style]
    resolve = socket.getaddrinfo

    def to_loopback(name: str, *rest: object, **options: object) -> list:
        return resolve("127.0.0.1" if str(name).endswith(DOMAIN) else name, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", to_loopback)
    opened()  # the server's credentials
    config = tmp_path / "config"
    config.write_text(f"[default]\ns3 =\n  addressing_style = {style}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{DOMAIN}:{port}")
    store = S3Store(f"s3://{server.bucket}/{tmp_path.name}", tmp_path / "cache")
    asked: list[str] = []
    store.client.meta.events.register(
        "before-send.s3", lambda request, **_: asked.append(request.url)
    )
    ref = store.put_tree(written(tmp_path / "in", {"a": b"1"}))
    assert content(store.open_tree(ref.sha256)) == {"a": b"1"}
    assert {url.split("/")[2] for url in asked} == {f"{host}:{port}"}
