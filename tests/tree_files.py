"""Folders of small files that become trees, and what a tree holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from layerwright.tasks.store.manifest import MANIFEST


def lay(folder: Path, files: Mapping[str, bytes]) -> Path:
    """The folder, with these files in it."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a tree but its manifest."""
    found = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if name != MANIFEST}
