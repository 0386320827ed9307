"""Texts as fetching leaves them."""

import json
from pathlib import Path


def write_text(folder: Path, *documents: str) -> Path:
    return _write(folder, [{"text": text} for text in documents])


def write_items(folder: Path, rows: list[dict]) -> Path:
    return _write(folder, [{"item": row} for row in rows])


def _write(folder: Path, documents: list[dict]) -> Path:
    folder.mkdir(parents=True)
    lines = map(json.dumps, documents)
    (folder / "documents.jsonl").write_text("\n".join(lines) + "\n")
    return folder
