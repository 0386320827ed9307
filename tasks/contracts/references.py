"""References to what lies in the store: models, checkpoints, texts."""

from __future__ import annotations

from layerwright.tasks.contracts.base import Contract


class TreeRef(Contract):
    """A folder in the store. ``sha256`` is the digest of its manifest.json."""

    uri: str
    sha256: str
    bytes: int


class ModelRef(TreeRef):
    """A base model as a normalised checkpoint: safetensors, config, tokenizer, chat template."""

    source: str
    family: str
    layers: int
    hidden_size: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    max_positions: int
    parameters: int
    dtype: str


LINEAGE = "layerwright.json"  # in every checkpoint: base, plan, what it was fitted and tuned on


class CheckpointRef(TreeRef):
    """A converted checkpoint; it loads with Transformers alone."""

    base_sha256: str
    plan_sha256: str


class TextRef(TreeRef):
    """``documents.jsonl``, a ``{"text": ...}``, ``{"messages": [...]}`` or ``{"item": {...}, "at":
    "file:line"}`` a line; or files as they were."""

    source: str
    documents: int
    characters: int


class Calibration(Contract):
    """Rows of a text that conversion may fit on: ``rows`` of ``row_tokens`` tokens."""

    text: TextRef
    rows: int
    row_tokens: int
