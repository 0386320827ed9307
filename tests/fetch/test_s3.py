"""The S3 source against a real server."""

from pathlib import Path

import pytest
from s3_server import S3Server, client, s3_server

from layerwright.tasks.errors import InputError, StepError
from layerwright.tasks.fetch.sources import parse
from layerwright.tasks.fetch.sources.source import names_in

FILES = {"set/a.txt": b"one", "set/deep/b.txt": b"2" * 9_000_000, "set/c.md": b"three",
         "settings/d.txt": b"four"}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture
def bucket(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    for name, data in FILES.items():
        client(server).put_object(Bucket=server.bucket, Key=name, Body=data)
    return server.bucket


def test_what_lies_under_a_prefix(bucket: str, tmp_path: Path) -> None:
    source = parse(f"s3://{bucket}/set", None, patterns=("*.txt",))
    assert source.size_bytes() == 9_000_003
    folder = source.fetch(tmp_path / "work")
    assert names_in(folder) == ["a.txt", "deep/b.txt"]  # and nothing of settings/
    assert (folder / "deep" / "b.txt").read_bytes() == FILES["set/deep/b.txt"]


def test_a_single_object_is_a_source(bucket: str, tmp_path: Path) -> None:
    folder = parse(f"s3://{bucket}/set/c.md", None).fetch(tmp_path / "work")
    assert (folder / "c.md").read_bytes() == b"three"


def test_identity_changes_with_the_objects_that_are_wanted(bucket: str, server: S3Server) -> None:
    def identity() -> str:
        return parse(f"s3://{bucket}/set/", None, patterns=("*.txt",)).identity()

    first = identity()
    client(server).put_object(Bucket=bucket, Key="set/c.md", Body=b"other")
    assert identity() == first
    client(server).put_object(Bucket=bucket, Key="set/a.txt", Body=b"two")  # same size
    assert identity() != first


def test_an_interrupted_fetch_takes_only_what_is_missing(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = parse(f"s3://{bucket}/set", None)
    take, taken = source.take, []

    def second_breaks(name: str, target: Path, *rest: object) -> None:
        if taken:
            target.write_bytes(b"half")
            raise StepError("connection lost")
        taken.append(name)
        take(name, target, *rest)

    monkeypatch.setattr(source, "take", second_breaks)
    with pytest.raises(StepError):
        source.fetch(tmp_path / "work")
    again = parse(f"s3://{bucket}/set", None)
    take = again.take
    monkeypatch.setattr(again, "take", lambda *args: (taken.append(args[0]), take(*args)))
    folder = again.fetch(tmp_path / "work")
    assert taken == ["a.txt", "c.md", "deep/b.txt"]
    assert names_in(folder) == taken


def test_what_is_not_there_is_told(
    bucket: str, server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="no objects"):
        parse(f"s3://{bucket}/nowhere", None).size_bytes()
    with pytest.raises(InputError, match="cannot be listed"):
        parse("s3://no-such-bucket/x", None).size_bytes()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises((InputError, StepError), match="cannot be listed"):
        parse(f"s3://{bucket}/set", None).size_bytes()
