"""Which files a tree was made from: ``source.json``, with the size and digest of each."""

from __future__ import annotations

import json
from pathlib import Path

from layerwright.tasks.disk import sha256_file

SOURCE = "source.json"


def record_files(
    folder: Path, source: str, files: Path, names: list[str], license: str | None = None
) -> None:
    """Write ``source.json`` into ``folder``: the source, and path, bytes and sha256 of its files.

    A model's license stands there too, where its files say it.

    It holds no time and no place of this machine, so the same source gives the same bytes.
    """
    entries = [
        {
            "path": name,
            "bytes": (files / name).stat().st_size,
            "sha256": sha256_file(files / name),
        }
        for name in names
    ]
    told = {"license": license} if license else {}
    record = {"source": source, **told, "files": entries}
    text = json.dumps(record, indent=1, ensure_ascii=False)
    (folder / SOURCE).write_text(text + "\n", encoding="utf-8")
