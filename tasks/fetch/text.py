"""A text, from its source to ``documents.jsonl`` in the store; or files as they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.references import TextRef
from layerwright.tasks.errors import InputError
from layerwright.tasks.fetch.documents import characters, digest, read_documents
from layerwright.tasks.fetch.provenance import record_files
from layerwright.tasks.fetch.sources import text_source
from layerwright.tasks.fetch.sources.source import names_in
from layerwright.tasks.progress import progress
from layerwright.tasks.recipe.data import TextSource

DOCUMENTS = "documents.jsonl"


def fetch_text(source: TextSource, ctx: Context, data_root: str | None = None) -> TextRef:
    """Bring a text into the store: one document a line, in the order of files and rows.

    Empty documents and repetitions (white space aside) are left out, of items only the empty ones;
    and so are documents outside ``source.part``: a document's place in [0, 1) comes from its own
    digest, so two disjoint parts never share one, whatever else is added to the source.

    Args:
        source: where from, which files, which field, which part.
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
    if source.form == "files":
        return _keep_files(source.source, files, names, ctx)
    low, high = source.part
    field = source.field if source.form == "text" else None
    seen: set[str] = set()
    documents = total = 0
    folder = ctx.folder("text")
    with (folder / DOCUMENTS).open("w", encoding="utf-8", newline="\n") as out, progress() as bar:
        for name in bar.track(names, description="read"):
            for document in read_documents(files / name, field):
                sha256 = digest(document)
                count = characters(document)
                if count == 0 or (field and sha256 in seen):
                    continue
                seen.add(sha256)
                if low <= place(sha256) < high:
                    out.write(json.dumps(document, ensure_ascii=field is None) + "\n")
                    documents, total = documents + 1, total + count
    if documents == 0:
        raise InputError(
            f"{source.source} leaves no text",
            expected=f"documents in {', '.join(source.files)}, part {low:g} to {high:g}",
        )
    record_files(folder, source.source, files, names)
    tree = ctx.store.put_tree(folder)
    return TextRef(**tree.model_dump(), source=source.source, documents=documents, characters=total)


def _keep_files(source: str, files: Path, names: list[str], ctx: Context) -> TextRef:
    """The files under their own names; they count as documents, and their bytes as characters."""
    folder = ctx.folder("files")
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(files / name, folder / name)
    tree = ctx.store.put_tree(folder)
    total = sum((files / name).stat().st_size for name in names)
    return TextRef(**tree.model_dump(), source=source, documents=len(names), characters=total)


def place(sha256: str) -> float:
    """A digest as a number in [0, 1), evenly spread: its first 52 bits."""
    return int(sha256[:13], 16) / 16**13
