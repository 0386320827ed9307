"""The kinds of source for models and texts, a file each; a source's prefix selects its kind."""

from functools import partial

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

# all files that a model can need, but none that runs code when it is read (.bin, .pt, .py)
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
    """Parse a recipe's ``source`` field; read nothing yet. The arguments are those of `Source`;
    ``require`` None means ``patterns``. InputError if no kind of source accepts it.
    """
    for kind in KINDS:
        if kind.claims(source):
            return kind(source, data_root, patterns, require or patterns, purpose, refine)
    raise InputError(f"{source!r} is not a source", expected=accepted_forms(KINDS, purpose))


def model_source(source: ModelSource, data_root: str | None) -> Source:
    """The source of a model, limited to the files of its checkpoint."""
    pick = partial(pick_checkpoint, source.source)
    return parse(source.source, data_root, patterns=MODEL_FILES, require=WEIGHTS, refine=pick)


def text_source(source: TextSource, data_root: str | None) -> Source:
    """The source of a text, limited to its ``files``; ``*`` selects every readable format."""
    patterns = TEXT_FILES if source.files == ("*",) else source.files
    return parse(source.source, data_root, patterns=patterns, purpose="text")
