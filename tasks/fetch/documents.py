"""Read documents from plain text, JSON, JSON lines, Arrow and Parquet files.

A document is ``{"text": str}``, ``{"messages": [{"role": str, "content": str}, ...]}``, or
``{"item": {...}, "at": "file:line"}`` for a row that is kept unchanged.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from layerwright.tasks.errors import InputError

Document = dict[str, Any]
Row = tuple[str, Any]  # its position in the file, for error messages, and its value


def read_documents(path: Path, field: str | None) -> Iterator[Document]:
    """Yield the documents of one file, in order; its suffix selects the reader.

    ``field``: the key or column that holds the text or the messages; None keeps whole rows.
    InputError if the format is unknown, the file is broken, or a row has no text.
    """
    if (reader := READERS.get(path.suffix)) is None:
        raise InputError(
            f"{path.name}: Layerwright cannot read text from "
            + (f"{path.suffix} files" if path.suffix else "files without a suffix"),
            expected=f"one of {', '.join(READERS)}",
            remedy="select the files with `files`",
        )
    try:
        for position, row in reader(path):
            where = f"{path.name}:{position}"
            yield to_item(row, where) if field is None else to_document(row, field, where)
    except (ValueError, RecursionError, OSError, pyarrow.ArrowException) as error:
        raise InputError(f"{path.name} cannot be read: {error}") from error


def to_document(row: Any, field: str, where: str) -> Document:
    """Convert a row to a document: ``messages`` stay a chat; an instruction (``instruction``,
    ``input``, ``output``) becomes a question and its answer; another gives its ``field``.
    """
    if isinstance(row, str):
        return {"text": _clean(row)}
    if not isinstance(row, dict):
        raise InputError(
            f"the row is a {type(row).__name__}", where=where, expected="an object or a string"
        )
    chat = "messages" if field == "text" else field
    if isinstance(row.get(chat), list):
        return {"messages": [_message(message, where) for message in row[chat]]}
    if isinstance(row.get(field), str):
        return {"text": _clean(row[field])}
    if field == "text" and isinstance(row.get("instruction"), str):
        asked = [row["instruction"], row.get("input") or row.get("context") or ""]
        answer = row.get("output") or row.get("response") or ""
        if not all(isinstance(part, str) for part in (*asked, answer)):
            raise InputError("input or output is not a string", where=where, expected="strings")
        pair = (("user", "\n\n".join(part for part in asked if part)), ("assistant", answer))
        return {"messages": [{"role": role, "content": _clean(text)} for role, text in pair]}
    raise InputError(
        f"no text in {field!r}; the row has {', '.join(map(str, row))}",
        where=where,
        expected="a string, a list of messages, or instruction, input and output",
        remedy="name the column with `field`",
    )


def to_item(row: Any, where: str) -> Document:
    """Wrap a row, unchanged, as a document."""
    if not isinstance(row, dict):
        raise InputError("not an object", where=where, expected="a row with named fields")
    try:
        # through JSON, so that the digest is of the values that a reader will get
        return json.loads(json.dumps({"item": row, "at": where}))
    except TypeError as error:
        raise InputError(f"JSON cannot hold a value of this row: {error}", where=where) from error


def digest(document: Document) -> str:
    """sha256 of a document's text, with runs of white space counted as a single space."""
    text = _json_of(document) if "item" in document else document.get("text")
    if text is None:
        text = "\n".join(f"{m['role']}: {m['content']}" for m in document["messages"])
    return hashlib.sha256(" ".join(text.split()).encode()).hexdigest()


def characters(document: Document) -> int:
    """Characters of text in a document, without chat-template markup; 0 if all of it is blank."""
    if "item" in document:
        return len(_json_of(document))
    messages = document.get("messages", ())
    texts = [document["text"]] if "text" in document else [m["content"] for m in messages]
    return sum(map(len, texts)) if any(map(str.strip, texts)) else 0


def _json_of(document: Document) -> str:
    return json.dumps(document["item"], sort_keys=True)


def _message(message: Any, where: str) -> dict[str, str]:
    fields = message if isinstance(message, dict) else {}
    role, content = fields.get("role"), fields.get("content")
    if not isinstance(role, str) or not isinstance(content, str):
        raise InputError(
            "a message without role and content", where=where, expected="both, as strings"
        )
    return {"role": role, "content": _clean(content)}


def _clean(text: str) -> str:
    # JSON allows a lone surrogate; UTF-8 does not
    return text.encode("utf-8", errors="replace").decode()


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
        yield from _lines(path)  # JSON lines in a file named .json
        return
    yield from _numbered(rows if isinstance(rows, list) else [rows])


def _arrow(path: Path) -> Iterator[Row]:
    with pyarrow.memory_map(str(path)) as file:
        try:
            batches = pyarrow.ipc.open_stream(file)  # the format that Hugging Face datasets writes
        except pyarrow.ArrowInvalid:
            opened = pyarrow.ipc.open_file(file)
            batches = (opened.get_batch(i) for i in range(opened.num_record_batches))
        yield from _rows(batches)


def _parquet(path: Path) -> Iterator[Row]:
    with pyarrow.parquet.ParquetFile(path) as file:
        yield from _rows(file.iter_batches(batch_size=1024))


def _rows(batches: Any) -> Iterator[Row]:
    return _numbered(row for batch in batches for row in batch.to_pylist())


def _numbered(rows: Iterable[Any]) -> Iterator[Row]:
    return ((f"row {number}", row) for number, row in enumerate(rows))


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".txt": lambda path: iter([("1", path.read_text(encoding="utf-8-sig"))]),
    ".jsonl": _lines,
    ".json": _json,
    ".arrow": _arrow,
    ".parquet": _parquet,
}
