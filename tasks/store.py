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
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple
from urllib.parse import urlparse
from urllib.request import url2pathname

from pydantic import Field, ValidationError

from tasks.contracts import Contract, TreeRef
from tasks.errors import IntegrityError

MANIFEST = "manifest.json"


class TreeFile(Contract):
    """A file of a tree, by its path inside it."""

    path: str
    bytes: int = Field(ge=0)
    sha256: str


class Manifest(Contract):
    """All files of a tree."""

    format: Literal[1] = 1
    files: tuple[TreeFile, ...]


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


def parse_manifest(data: bytes, sha256: str, where: str) -> tuple[TreeFile, ...]:
    """The manifest's files, after checking its digest and that no path leaves the tree.

    Raises:
        IntegrityError: the manifest is not the one that was written.
    """
    if hashlib.sha256(data).hexdigest() != sha256:
        raise IntegrityError(f"{where}: the manifest's sha256 is not {sha256}")
    try:
        files = Manifest.model_validate_json(data).files
    except ValidationError as error:
        raise IntegrityError(
            f"{where}: no manifest of a tree: {error.errors()[0]['msg']}"
        ) from error
    for file in files:
        path = PurePosixPath(file.path)
        if path.is_absolute() or ".." in path.parts or not path.parts or set("\\\0") & {*file.path}:
            raise IntegrityError(f"{where}: the manifest names {file.path!r}, outside its tree")
    if len({file.path for file in files} - {MANIFEST}) < len(files):
        raise IntegrityError(f"{where}: the manifest names a file twice, or itself")
    return files


def verify_file(path: Path, entry: TreeFile) -> None:
    """Raise IntegrityError unless ``path`` is a file with the size and sha256 of its entry."""
    if path.is_symlink() or not path.is_file():
        raise IntegrityError(f"{path}: listed in the manifest, but no file of the tree")
    if path.stat().st_size != entry.bytes or sha256_file(path) != entry.sha256:
        raise IntegrityError(f"{path}: not the bytes that the manifest lists")


def write_atomically(path: Path, data: bytes) -> None:
    """Temporary name, flush to disk, rename: a reader sees the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


class Entry(NamedTuple):
    """One file or object of a store."""

    key: str
    bytes: int
    modified: datetime


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

    @abstractmethod
    def entries(self, prefix: str) -> Iterator[Entry]:
        """Everything whose key begins with ``prefix``, a folder with its slash."""

    @abstractmethod
    def remove(self, keys: Sequence[str]) -> None:
        """Take keys away, in their order; those that are not there are no error."""

    @abstractmethod
    def remove_unfinished(self, before: datetime, *, dry: bool = False) -> int:
        """Take away what interrupted writes left before a time; how many there were."""

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

    def entries(self, prefix: str) -> Iterator[Entry]:
        for path in sorted((self.root / prefix).rglob("*")):
            if path.is_file() and ".partial" not in path.relative_to(self.root).as_posix():
                status = path.stat()
                modified = datetime.fromtimestamp(status.st_mtime, UTC)
                yield Entry(path.relative_to(self.root).as_posix(), status.st_size, modified)

    def remove(self, keys: Sequence[str]) -> None:
        for key in keys:
            path = self.root / key
            path.unlink(missing_ok=True)
            for folder in path.parents:
                if folder == self.root or any(folder.iterdir()):
                    break
                folder.rmdir()

    def remove_unfinished(self, before: datetime, *, dry: bool = False) -> int:
        old = [
            path
            for path in (*self.root.glob("*/.*.partial"), *self.root.glob("*/*/.*.partial"))
            if datetime.fromtimestamp(path.stat().st_mtime, UTC) < before
        ]
        for path in [] if dry else old:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return len(old)

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
        size = sum(file.bytes for file in parse_manifest(manifest, sha256, str(target)))
        return TreeRef(uri=self.tree_uri(sha256), sha256=sha256, bytes=size)

    def open_tree(self, sha256: str) -> Path:
        folder = self.root / "trees" / sha256
        data = self.read(f"trees/{sha256}/{MANIFEST}")
        if data is None:
            raise IntegrityError(f"{folder}: no such tree in this store")
        files = parse_manifest(data, sha256, str(folder))
        # a process that opens a tree again need not hash it again while no file was touched
        stamp = tuple(
            (file.path, s.st_size, s.st_mtime_ns)
            for file in files
            if (folder / file.path).is_file() and (s := (folder / file.path).stat())
        )
        if self._verified.get(sha256) != stamp or len(stamp) != len(files):
            for file in files:
                verify_file(folder / file.path, file)
            self._verified[sha256] = stamp
        return folder


def open_store(uri: str | Path, cache: Path) -> Store:
    """The store at ``s3://bucket/prefix``, a ``file://`` URI or a folder.

    Args:
        cache: local folder for trees that are read from a remote store.
    """
    text = str(uri)
    if text.startswith("s3://"):
        from tasks.s3_store import S3Store  # boto3 is slow to import, and not always needed

        return S3Store(text, cache)
    if text.startswith("file://"):
        return LocalStore(url2pathname(urlparse(text).path))
    return LocalStore(text)
