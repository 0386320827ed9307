"""A text or records, from their source to JSON lines in the store."""

from __future__ import annotations

import json

from tasks.context import Context
from tasks.contracts import TextRef
from tasks.errors import InputError
from tasks.fetch.documents import characters, digest, read_documents, read_records
from tasks.fetch.provenance import record_files
from tasks.fetch.sources import text_source
from tasks.fetch.sources.source import names_in
from tasks.progress import progress
from tasks.recipe import TextSource

FILES = {"text": "documents.jsonl", "records": "records.jsonl"}


def fetch_text(source: TextSource, ctx: Context, data_root: str | None = None) -> TextRef:
    """Bring a text into the store: one document or record a line, in the order of files and rows.

    Empty documents and repetitions (white space aside) are left out; records are not, so that every
    one that was given is asked. Left out are those outside ``source.part``: a document's place in [0, 1) comes from its own digest, so two disjoint parts
    never share one, whatever else is added to the source.

    Args:
        source: where from, which files, which field, text or records, which part.
        ctx: what was downloaded stays in the workdir, so a killed fetch goes on.
        data_root: where relative local paths start.

    Raises:
        InputError: no such source or files, a row without text, or nothing left in the part.
        StepError: a download failed.
    """
    ctx.log(f"fetching {source.source}")
    files = text_source(source, data_root).fetch(ctx.workdir / "source")
    names = names_in(files)
    ctx.log(f"reading {len(names)} files of {source.source}")
    low, high = source.part
    seen: set[str] = set()
    documents = total = 0
    folder = ctx.folder("text")
    records = source.form == "records"
    with (
        (folder / FILES[source.form]).open("w", encoding="utf-8", newline="\n") as out,
        progress() as bar,
    ):
        for name in bar.track(names, description="read"):
            path = files / name
            for document in read_records(path) if records else read_documents(path, source.field):
                sha256 = digest(document)
                count = characters(document)
                if not records and (count == 0 or sha256 in seen):
                    continue
                seen.add(sha256)
                if low <= place(sha256) < high:
                    out.write(json.dumps(document, ensure_ascii=records) + "\n")
                    documents, total = documents + 1, total + count
    if documents == 0:
        raise InputError(
            f"{source.source} leaves no text",
            expected=f"documents in {', '.join(source.files)}, part {low:g} to {high:g}",
        )
    record_files(folder, source.source, files, names)
    tree = ctx.store.put_tree(folder)
    return TextRef(**tree.model_dump(), source=source.source, documents=documents, characters=total)


def place(sha256: str) -> float:
    """A digest as a number in [0, 1), evenly spread: its first 52 bits."""
    return int(sha256[:13], 16) / 16**13
