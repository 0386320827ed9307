"""The interface of a store.

A *tree* is a folder of files, stored as ``trees/<sha256>/...``. Its manifest.json lists the size
and sha256 of every file; the tree's digest is the sha256 of the manifest. The manifest is written
last, so that a tree either is complete or does not exist. Small results are single keys.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from layerwright.tasks.contracts.references import TreeRef
from layerwright.tasks.store.manifest import MANIFEST


class Entry(NamedTuple):
    """One file or object of a store."""

    key: str
    bytes: int
    modified: datetime


class Store(ABC):
    """Content-addressed trees and small keyed values."""

    uri: str  # the address, as ``open_store`` takes it
    cache: Path  # the local folder from which trees are read; a remote store downloads them to it

    @abstractmethod
    def read(self, key: str) -> bytes | None:
        """The bytes of a key; None if the key does not exist."""

    @abstractmethod
    def write(self, key: str, data: bytes) -> None:
        """Write a key atomically."""

    @abstractmethod
    def put_tree(self, folder: Path) -> TreeRef:
        """Move a folder into the store as a tree; the folder itself is removed.

        The same content gives the same tree.
        """

    @abstractmethod
    def open_tree(self, sha256: str) -> Path:
        """A local folder with the tree's files, each verified against the manifest.

        Raises:
            IntegrityError: the tree is missing, or a file differs from the manifest.
        """

    @abstractmethod
    def tree_uri(self, sha256: str) -> str:
        """The address of a tree."""

    @abstractmethod
    def entries(self, prefix: str) -> Iterator[Entry]:
        """All keys that start with ``prefix``; a folder's prefix ends with a slash."""

    @abstractmethod
    def remove(self, keys: Sequence[str]) -> None:
        """Delete keys in the given order; a missing key is no error."""

    @abstractmethod
    def remove_unfinished(self, before: datetime, *, dry: bool = False) -> int:
        """Delete what writes interrupted before a time left behind; return how many there were.

        Args:
            dry: only count.
        """

    def has_tree(self, sha256: str) -> bool:
        return self.read(f"trees/{sha256}/{MANIFEST}") is not None
