"""The manifest of a tree: path, size and sha256 of every file."""

import hashlib
import json
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import Field, ValidationError

from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.disk import sha256_file
from layerwright.tasks.errors import IntegrityError

MANIFEST = "manifest.json"


class TreeFile(Contract):
    """One file of a tree; ``path`` is relative to the tree."""

    path: str
    bytes: int = Field(ge=0)
    sha256: str


class Manifest(Contract):
    """All files of a tree."""

    format: Literal[1] = 1
    files: tuple[TreeFile, ...]


def build_manifest(folder: Path) -> bytes:
    """The canonical manifest of all files in ``folder``, except a manifest.json at its top."""
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
    """The files of a manifest, after checking its digest and that all paths stay in the tree.

    Args:
        where: the tree, for messages.

    Raises:
        IntegrityError: the manifest is damaged or invalid.
    """
    if hashlib.sha256(data).hexdigest() != sha256:
        raise IntegrityError(f"{where}: the manifest's sha256 is not {sha256}")
    try:
        files = Manifest.model_validate_json(data).files
    except ValidationError as error:
        why = error.errors()[0]["msg"]
        raise IntegrityError(f"{where}: {MANIFEST} is not a tree's manifest: {why}") from error
    for file in files:
        path = PurePosixPath(file.path)
        if path.is_absolute() or ".." in path.parts or not path.parts or set("\\\0") & {*file.path}:
            raise IntegrityError(f"{where}: the manifest lists {file.path!r}, outside the tree")
    if len({file.path for file in files} - {MANIFEST}) < len(files):
        raise IntegrityError(f"{where}: the manifest lists a file twice, or itself")
    return files


def verify_file(path: Path, entry: TreeFile) -> None:
    """Raise IntegrityError unless ``path`` is a regular file with its entry's size and sha256."""
    if path.is_symlink() or not path.is_file():
        raise IntegrityError(f"{path}: the manifest lists this file, but the tree lacks it")
    if path.stat().st_size != entry.bytes or sha256_file(path) != entry.sha256:
        raise IntegrityError(f"{path}: the content differs from the manifest")
