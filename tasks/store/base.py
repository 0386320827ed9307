"""Where results live: a local folder or an S3 prefix behind the same calls.

A *tree* is a folder of files under its own digest: ``trees/<sha256>/...``. Its manifest.json lists
every file with size and sha256 and is written last, so a tree without a manifest does not exist;
the tree's digest is the sha256 of that manifest. Small results are single keys.
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
