"""Documents out of files: plain text, JSON, JSON lines, Arrow and Parquet, all to one form.

A document is ``{"text": str}``, ``{"messages": [{"role": str, "content": str}, ...]}``, or
``{"item": {...}, "at": "file:line"}`` where rows are kept as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from layerwright.tasks.errors import InputError

Document = dict[str, Any]
Row = tuple[str, Any]  # where it stands, for messages, and what it holds


def read_documents(path: Path, field: str | None) -> Iterator[Document]:
    """The documents of one file, in order.

    Args:
        path: its ending says its format.
        field: the key or column that holds the text, or messages; None keeps whole rows.

    Raises:
        InputError: unknown format, broken file, or a row without text.
    """
    reader = READERS.get(path.suffix)
    if reader is None:
        raise InputError(
            f"{path.name}: texts cannot be read from {path.suffix or 'such'} files",
            expected=f"one of {', '.join(READERS)}",
            remedy="choose the files with `files`",
        )
    try:
        for place, row in reader(path):
            where = f"{path.name}:{place}"
            yield to_item(row, where) if field is None else to_document(row, field, where)
    except (ValueError, RecursionError, OSError, pyarrow.ArrowException) as error:
        raise InputError(f"{path.name} cannot be read: {error}") from error


def to_document(row: Any, field: str, where: str) -> Document:
    """A row as a document.

    Chat rows (``messages``) stay chat; instruction rows (``instruction`` with ``input`` and
    ``output``) become a question and its answer; any other row gives the text in ``field``.

    Raises:
        InputError: the row has none of these.
    """
    if isinstance(row, str):
        return {"text": _clean(row)}
    if not isinstance(row, dict):
        raise InputError("neither an object nor a string", where=where)
    chat = "messages" if field == "text" else field
    if isinstance(row.get(chat), list):
        return {"messages": [_message(message, where) for message in row[chat]]}
    if isinstance(row.get(field), str):
        return {"text": _clean(row[field])}
    if field == "text" and isinstance(row.get("instruction"), str):
        asked = [row["instruction"], row.get("input") or row.get("context") or ""]
        answer = row.get("output") or row.get("response") or ""
        if not all(isinstance(part, str) for part in (*asked, answer)):
            raise InputError("input or output is no text", where=where, expected="strings")
        pair = (("user", "\n\n".join(part for part in asked if part)), ("assistant", answer))
        return {"messages": [{"role": role, "content": _clean(text)} for role, text in pair]}
    raise InputError(
        f"no text in {field!r}; the row has {', '.join(map(str, row))}",
        where=where,
        expected="a string, a list of messages, or instruction, input and output",
        remedy="name the column with `field`",
    )


def to_item(row: Any, where: str) -> Document:
    """A row kept as it is.

    Raises:
        InputError: it has no fields.
    """
    if not isinstance(row, dict):
        raise InputError("not an object", where=where, expected="a row with named fields")
    try:
        return json.loads(json.dumps({"item": row, "at": where}))  # as every reader will find it
    except TypeError as error:
        raise InputError(f"a value that JSON has not: {error}", where=where) from error


def digest(document: Document) -> str:
    """sha256 of what a document says, whatever its white space."""
    said = _json_of(document) if "item" in document else document.get("text")
    if said is None:
        said = "\n".join(f"{m['role']}: {m['content']}" for m in document["messages"])
    return hashlib.sha256(" ".join(said.split()).encode()).hexdigest()


def characters(document: Document) -> int:
    """Characters of text in a document, without a chat template's markup; 0 if all are blank."""
    if "item" in document:
        return len(_json_of(document))
    messages = document.get("messages", ())
    said = [document["text"]] if "text" in document else [m["content"] for m in messages]
    return sum(map(len, said)) if any(map(str.strip, said)) else 0


def _json_of(document: Document) -> str:
    return json.dumps(document["item"], sort_keys=True)


def _message(message: Any, where: str) -> dict[str, str]:
    role, content = (
        (message.get("role"), message.get("content")) if isinstance(message, dict) else (None, None)
    )
    if not isinstance(role, str) or not isinstance(content, str):
        raise InputError(
            "a message without role and content", where=where, expected="both, as strings"
        )
    return {"role": role, "content": _clean(content)}


def _clean(text: str) -> str:
    # half of a surrogate pair is valid in JSON, but not in UTF-8
    return text.encode("utf-8", errors="replace").decode()


def _text(path: Path) -> Iterator[Row]:
    yield "1", path.read_text(encoding="utf-8-sig")


def _lines(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield str(number), json.loads(line)
                except ValueError as error:
                    raise ValueError(f"line {number}: {error}") from error


def _json(path: Path) -> Iterator[Row]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        if not error.msg.startswith("Extra data"):
            raise
        yield from _lines(path)  # JSON lines under the wrong name
        return
    for number, row in enumerate(rows if isinstance(rows, list) else [rows]):
        yield f"row {number}", row


def _arrow(path: Path) -> Iterator[Row]:
    with pyarrow.memory_map(str(path)) as file:
        try:
            batches = pyarrow.ipc.open_stream(file)  # as Hugging Face datasets writes them
        except pyarrow.ArrowInvalid:
            opened = pyarrow.ipc.open_file(file)
            batches = (opened.get_batch(i) for i in range(opened.num_record_batches))
        yield from _rows(batches)


def _parquet(path: Path) -> Iterator[Row]:
    with pyarrow.parquet.ParquetFile(path) as file:
        yield from _rows(file.iter_batches(batch_size=1024))


def _rows(batches: Any) -> Iterator[Row]:
    number = 0
    for batch in batches:
        for row in batch.to_pylist():
            yield f"row {number}", row
            number += 1


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".txt": _text,
    ".jsonl": _lines,
    ".json": _json,
    ".arrow": _arrow,
    ".parquet": _parquet,
}
