"""Fetch a text and store it as ``documents.jsonl``, or store its files unchanged."""

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


def fetch_text(
    source: TextSource, ctx: Context, data_root: str | None = None, pin: str = ""
) -> TextRef:
    """Store a text as a line per document, in the order of files and rows.

    Drops empty documents, duplicates (compared without white space; items are never compared), and
    documents outside ``source.part``. The digest of a document gives its position in [0, 1), and
    ``part`` is a range of positions. So two disjoint parts never share a document, and documents
    that are added to the source later do not move the others. Downloaded files stay in the step's
    workdir, so a fetch that was killed resumes there.

    Args:
        data_root: folder that relative local paths start from.
        pin: identity of the source, a part of the cache key.

    InputError if the source or its files do not exist, a row has no text, or the part is empty.
    StepError if a download failed.
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
                sha256, count = digest(document), characters(document)
                if count == 0 or (field and sha256 in seen):
                    continue
                seen.add(sha256)
                if low <= position(sha256) < high:
                    out.write(json.dumps(document, ensure_ascii=field is None) + "\n")
                    documents, total = documents + 1, total + count
    if documents == 0:
        raise InputError(
            f"{source.source} has no text in this part",
            expected=f"documents in {', '.join(source.files)}, part {low:g} to {high:g}",
        )
    record_files(folder, source.source, files, names)
    tree = ctx.store.put_tree(folder)
    return TextRef(**tree.model_dump(), source=source.source, documents=documents, characters=total)


def _keep_files(source: str, files: Path, names: list[str], ctx: Context) -> TextRef:
    """Store the files under their names; count files as documents and bytes as characters."""
    folder = ctx.folder("files")
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(files / name, folder / name)
    tree = ctx.store.put_tree(folder)
    total = sum((files / name).stat().st_size for name in names)
    return TextRef(**tree.model_dump(), source=source, documents=len(names), characters=total)


def position(sha256: str) -> float:
    """Map a digest to [0, 1), uniformly, by its first 52 bits."""
    return int(sha256[:13], 16) / 16**13
