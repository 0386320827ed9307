"""A folder that appears whole, or not at all."""

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
    """A folder beside ``target`` to write into; it takes its name once the block ends well.

    Args:
        readme: text of its README.md, where it gets one.

    Raises:
        InputError: something lies at ``target`` already.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} exists already", expected="a new or empty folder for --out")
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
    """Copies the files of a folder, but those that match a pattern of ``left_out``.

    Copies, not links: a store's tree must not change when someone edits what was exported.
    """
    for file in sorted(source.iterdir()):
        if file.is_file() and not any(file.match(pattern) for pattern in left_out):
            shutil.copyfile(file, target / file.name)
