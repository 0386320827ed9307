"""Where results live: a local folder or an S3 prefix behind the same calls.

A *tree* is a folder of files under its own digest: ``trees/<sha256>/...``. Its manifest.json lists
every file with size and sha256 and is written last, so a tree without a manifest does not exist;
the tree's digest is the sha256 of that manifest. Small results are single keys.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from abc import ABC, abstractmethod
from pathlib import Path, PurePosixPath
from urllib.parse import urlparse
from urllib.request import url2pathname

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tasks.contracts import TreeRef
from tasks.errors import InputError, IntegrityError, StepError

MANIFEST = "manifest.json"
S3_ERRORS = (ClientError, BotoCoreError, Boto3Error)  # for those who use s3_client()


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def build_manifest(folder: Path) -> bytes:
    """Canonical manifest of every file under ``folder`` (but a manifest.json at its top)."""
    files = [
        {
            "path": path.relative_to(folder).as_posix(),
            "bytes": path.stat().st_size,
            "sha256": sha256_file(path),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MANIFEST
    ]
    return json.dumps({"format": 1, "files": files}, sort_keys=True, indent=1).encode()


def parse_manifest(data: bytes, sha256: str, where: str) -> list[dict]:
    """The manifest's files, after checking its digest and that no path leaves the tree.

    Raises:
        IntegrityError: the manifest is not the one that was written.
    """
    if hashlib.sha256(data).hexdigest() != sha256:
        raise IntegrityError(f"{where}: the manifest's sha256 is not {sha256}")
    files = json.loads(data)["files"]
    for entry in files:
        path = PurePosixPath(entry["path"])
        if path.is_absolute() or ".." in path.parts or "\\" in entry["path"]:
            raise IntegrityError(f"{where}: the manifest names {entry['path']!r}, outside its tree")
    return files


def verify_file(path: Path, entry: dict) -> None:
    """Raise IntegrityError unless ``path`` has the size and sha256 that its entry says."""
    if not path.is_file():
        raise IntegrityError(f"{path}: listed in the manifest, but missing")
    if path.stat().st_size != entry["bytes"] or sha256_file(path) != entry["sha256"]:
        raise IntegrityError(f"{path}: not the bytes that the manifest lists")


def write_atomically(path: Path, data: bytes) -> None:
    """Temporary name, flush to disk, rename: a reader sees the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


class Store(ABC):
    """Content-addressed trees and small keyed values.

    Attributes:
        uri: where it is, for ``open_store``.
        cache: local folder for trees that are read from elsewhere.
    """

    uri: str
    cache: Path

    @abstractmethod
    def read(self, key: str) -> bytes | None:
        """The bytes under a key, or None."""

    @abstractmethod
    def write(self, key: str, data: bytes) -> None:
        """Put bytes under a key, whole or not at all."""

    @abstractmethod
    def put_tree(self, folder: Path) -> TreeRef:
        """Take a folder in; it is consumed. The same content gives the same tree."""

    @abstractmethod
    def open_tree(self, sha256: str) -> Path:
        """A local folder with the tree's files, each verified against the manifest.

        Raises:
            IntegrityError: the tree is missing or its bytes are not what was written.
        """

    @abstractmethod
    def tree_uri(self, sha256: str) -> str: ...

    def has_tree(self, sha256: str) -> bool:
        return self.read(f"trees/{sha256}/{MANIFEST}") is not None


class LocalStore(Store):
    """A store in a folder of this machine."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).resolve()
        self.uri = self.root.as_uri()
        self.cache = self.root
        self._verified: dict[str, tuple] = {}

    def read(self, key: str) -> bytes | None:
        try:
            return (self.root / key).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, key: str, data: bytes) -> None:
        write_atomically(self.root / key, data)

    def tree_uri(self, sha256: str) -> str:
        return f"{self.uri}/trees/{sha256}"

    def put_tree(self, folder: Path) -> TreeRef:
        (folder / MANIFEST).unlink(missing_ok=True)
        manifest = build_manifest(folder)
        sha256 = hashlib.sha256(manifest).hexdigest()
        target = self.root / "trees" / sha256
        try:
            self.open_tree(sha256)
            shutil.rmtree(folder)
        except IntegrityError:  # not there, or damaged: what we bring is known to be whole
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f".{sha256}.{uuid.uuid4().hex[:8]}.partial")
            shutil.move(folder, partial)
            write_atomically(partial / MANIFEST, manifest)
            if target.exists():
                shutil.rmtree(target)
            partial.rename(target)
        size = sum(entry["bytes"] for entry in json.loads(manifest)["files"])
        return TreeRef(uri=self.tree_uri(sha256), sha256=sha256, bytes=size)

    def open_tree(self, sha256: str) -> Path:
        folder = self.root / "trees" / sha256
        data = self.read(f"trees/{sha256}/{MANIFEST}")
        if data is None:
            raise IntegrityError(f"{folder}: no such tree in this store")
        files = parse_manifest(data, sha256, str(folder))
        # a process that opens a tree again need not hash it again while no file was touched
        stamp = tuple(
            (e["path"], s.st_size, s.st_mtime_ns)
            for e in files
            if (folder / e["path"]).is_file() and (s := (folder / e["path"]).stat())
        )
        if self._verified.get(sha256) != stamp or len(stamp) != len(files):
            for entry in files:
                verify_file(folder / entry["path"], entry)
            self._verified[sha256] = stamp
        return folder


class S3Store(Store):
    """A store under an S3 prefix; trees are downloaded to a local cache folder.

    Credentials, region and endpoint come from the usual AWS chain alone
    (``AWS_ENDPOINT_URL`` for servers other than AWS).
    """

    def __init__(self, uri: str, cache: Path) -> None:
        parsed = urlparse(uri)
        if parsed.scheme != "s3" or not parsed.netloc:
            raise InputError(f"{uri!r} is not an S3 address", expected="s3://bucket/prefix")
        self.uri = uri.rstrip("/")
        self.bucket, self.prefix = parsed.netloc, parsed.path.strip("/")
        self.cache = cache
        self.client = s3_client()
        self._opened: set[str] = set()

    def _key(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    def read(self, key: str) -> bytes | None:
        try:
            return self.client.get_object(Bucket=self.bucket, Key=self._key(key))["Body"].read()
        except self.client.exceptions.NoSuchKey:
            return None
        except S3_ERRORS as error:
            raise StepError(f"{self.uri}/{key} cannot be read: {error}") from error

    def write(self, key: str, data: bytes) -> None:
        try:
            self.client.put_object(
                Bucket=self.bucket, Key=self._key(key), Body=data, ChecksumAlgorithm="SHA256"
            )
        except S3_ERRORS as error:
            raise StepError(f"{self.uri}/{key} cannot be written: {error}") from error

    def tree_uri(self, sha256: str) -> str:
        return f"{self.uri}/trees/{sha256}"

    def put_tree(self, folder: Path) -> TreeRef:
        (folder / MANIFEST).unlink(missing_ok=True)
        manifest = build_manifest(folder)
        sha256 = hashlib.sha256(manifest).hexdigest()
        files = json.loads(manifest)["files"]
        try:
            present = self._sizes(self._key(f"trees/{sha256}/"))
            for entry in files:
                if present.get(entry["path"]) == entry["bytes"]:
                    continue  # an object is whole or not there: left by an interrupted upload
                self.client.upload_file(
                    str(folder / entry["path"]),
                    self.bucket,
                    self._key(f"trees/{sha256}/{entry['path']}"),
                    ExtraArgs={"ChecksumAlgorithm": "SHA256"},
                    Config=TransferConfig(max_concurrency=4),
                )
        except (*S3_ERRORS, OSError) as error:
            raise StepError(f"upload to {self.tree_uri(sha256)} failed: {error}") from error
        if MANIFEST not in present:
            self.write(f"trees/{sha256}/{MANIFEST}", manifest)
        shutil.rmtree(folder)
        size = sum(entry["bytes"] for entry in files)
        return TreeRef(uri=self.tree_uri(sha256), sha256=sha256, bytes=size)

    def _sizes(self, prefix: str) -> dict[str, int]:
        pages = self.client.get_paginator("list_objects_v2")
        return {
            entry["Key"].removeprefix(prefix): entry["Size"]
            for page in pages.paginate(Bucket=self.bucket, Prefix=prefix)
            for entry in page.get("Contents", [])
        }

    def open_tree(self, sha256: str) -> Path:
        folder = self.cache / sha256
        if sha256 in self._opened:
            return folder
        data = self.read(f"trees/{sha256}/{MANIFEST}")
        if data is None:
            raise IntegrityError(f"{self.tree_uri(sha256)}: no such tree in this store")
        for entry in parse_manifest(data, sha256, self.tree_uri(sha256)):
            path = folder / entry["path"]
            try:
                verify_file(path, entry)  # kept from an earlier, perhaps interrupted, download
                continue
            except IntegrityError:
                path.parent.mkdir(parents=True, exist_ok=True)
            # a name of its own: another process may be opening the same tree
            partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
            try:
                self.client.download_file(
                    self.bucket, self._key(f"trees/{sha256}/{entry['path']}"), str(partial)
                )
            except S3_ERRORS as error:
                raise StepError(f"{self.tree_uri(sha256)}/{entry['path']}: {error}") from error
            try:
                verify_file(partial, entry)
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
        write_atomically(folder / MANIFEST, data)
        self._opened.add(sha256)
        return folder


def s3_client():  # type: ignore[no-untyped-def]
    """A boto3 S3 client from the usual chain, with few and bounded retries."""
    # a session of its own: the shared one is not thread-safe, and keeps the first credentials
    return boto3.Session().client(
        "s3",
        config=Config(retries={"max_attempts": 3, "mode": "standard"}, connect_timeout=10),
    )


def open_store(uri: str | Path, cache: Path) -> Store:
    """The store at ``s3://bucket/prefix``, a ``file://`` URI or a folder.

    Args:
        cache: local folder for trees that are read from a remote store.
    """
    text = str(uri)
    if text.startswith("s3://"):
        return S3Store(text, cache)
    if text.startswith("file://"):
        return LocalStore(url2pathname(urlparse(text).path))
    return LocalStore(text)
