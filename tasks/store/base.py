"""The interface of a store.

A *tree* is a folder of files, stored as ``trees/<sha256>/...``. Its manifest.json lists the size
and sha256 of every file; the tree's digest is the sha256 of the manifest. The manifest is written
last, so that a tree either is complete or does not exist. Small results are single keys.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from layerwright.tasks.contracts.references import TreeRef
from layerwright.tasks.store.manifest import MANIFEST, TreeFile, build_manifest, parse_manifest


class Entry(NamedTuple):
    """One file or object of a store."""

    key: str
    bytes: int
    modified: datetime


class Store(ABC):
    """Content-addressed trees and small keyed values."""

    uri: str  # the address, as ``open_store`` takes it
    cache: Path  # the folder from which trees are read; a remote store downloads them to it

    @abstractmethod
    def read(self, key: str) -> bytes | None:
        """The bytes of a key; None if the key does not exist."""

    @abstractmethod
    def write(self, key: str, data: bytes) -> None:
        """Write a key atomically."""

    @abstractmethod
    def put_tree(self, folder: Path) -> TreeRef:
        """Move a folder into the store; the same content gives the same tree."""

    @abstractmethod
    def open_tree(self, sha256: str) -> Path:
        """A local folder with the tree's files, each verified against the manifest.

        Raises:
            IntegrityError: the tree is missing, or a file differs from the manifest.
        """

    @abstractmethod
    def entries(self, prefix: str) -> Iterator[Entry]:
        """All keys that start with ``prefix``; a folder's prefix ends with a slash."""

    @abstractmethod
    def remove(self, keys: Sequence[str]) -> None:
        """Delete keys in the given order; a missing key is no error."""

    @abstractmethod
    def remove_unfinished(self, before: datetime, *, dry: bool = False) -> int:
        """Delete what writes interrupted before a time left behind, or only count it."""

    def has_tree(self, sha256: str) -> bool:
        return self.read(f"trees/{sha256}/{MANIFEST}") is not None

    def tree_uri(self, sha256: str) -> str:
        """The address of a tree."""
        return f"{self.uri}/trees/{sha256}"

    def _manifest_of(self, folder: Path) -> tuple[bytes, str, tuple[TreeFile, ...]]:
        """The manifest of a folder that becomes a tree, its digest and its files."""
        (folder / MANIFEST).unlink(missing_ok=True)
        manifest = build_manifest(folder)
        sha256 = hashlib.sha256(manifest).hexdigest()
        return manifest, sha256, parse_manifest(manifest, sha256, str(folder))

    def _ref(self, sha256: str, files: Sequence[TreeFile]) -> TreeRef:
        size = sum(file.bytes for file in files)
        return TreeRef(uri=self.tree_uri(sha256), sha256=sha256, bytes=size)


def older(paths: Iterable[Path], before: datetime) -> list[Path]:
    """The files and folders that were last changed before a time."""
    return [p for p in paths if datetime.fromtimestamp(p.stat().st_mtime, UTC) < before]
