"""Record the files that a tree was made from, with size and digest, in ``source.json``."""

from __future__ import annotations

import json
from pathlib import Path

from layerwright.tasks.disk import sha256_file

SOURCE = "source.json"


def record_files(
    folder: Path, source: str, files: Path, names: list[str], license: str | None = None
) -> None:
    """Write ``source.json``: the source, the path, bytes and sha256 of its files, and the license.

    The record has no time and no local path, so the same source gives the same bytes.
    """
    entries = [
        {"path": name, "bytes": (files / name).stat().st_size, "sha256": sha256_file(files / name)}
        for name in names
    ]
    stated = {"license": license} if license else {}
    record = {"source": source, **stated, "files": entries}
    text = json.dumps(record, indent=1, ensure_ascii=False)
    (folder / SOURCE).write_text(text + "\n", encoding="utf-8")
