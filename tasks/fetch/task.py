"""The `fetch` nodes of the DAG: the base model, and each text."""

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.references import ModelRef, TextRef
from layerwright.tasks.orchestration.node import node
from layerwright.tasks.recipe.data import TextSource
from layerwright.tasks.recipe.model import ModelSource


@node("fetch")
def fetch_model(source: ModelSource, data_root: str, pin: str, *, ctx: Context) -> ModelRef:
    """Source -> normalised checkpoint. ``pin`` is the source's identity, for the cache key."""
    from layerwright.tasks.fetch.model import fetch_model as fetch

    return fetch(source, ctx, data_root)


@node("fetch")
def fetch_text(source: TextSource, data_root: str, pin: str, *, ctx: Context) -> TextRef:
    """Source -> documents.jsonl. ``pin`` is the source's identity, for the cache key."""
    from layerwright.tasks.fetch.text import fetch_text as fetch

    return fetch(source, ctx, data_root)
