"""Write a folder atomically."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from layerwright.tasks.errors import InputError

README = "README.md"


@contextmanager
def new_folder(target: Path, readme: str | None = None) -> Iterator[Path]:
    """A temporary folder to write into, which is renamed to ``target`` if the block succeeds.

    Args:
        readme: text of its README.md; None for no such file.

    Raises:
        InputError: ``target`` exists and is not an empty folder.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} already exists", expected="a new or empty folder for --out")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    partial.mkdir()
    try:
        yield partial
        if readme is not None:
            (partial / README).write_text(readme, encoding="utf-8")
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def copy_files(source: Path, target: Path, left_out: tuple[str, ...]) -> None:
    """Copy a folder's files, except those that match a pattern in ``left_out``.

    It makes no links, because editing an exported file must not change the store's tree.
    """
    for file in sorted(source.iterdir()):
        if file.is_file() and not any(file.match(pattern) for pattern in left_out):
            shutil.copyfile(file, target / file.name)
