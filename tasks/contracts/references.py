"""References to models, checkpoints and texts in the store."""

from layerwright.tasks.contracts.base import Contract


class TreeRef(Contract):
    """A folder in the store. ``sha256`` is the digest of its manifest.json."""

    uri: str
    sha256: str
    bytes: int


class ModelRef(TreeRef):
    """A base model, normalised: safetensors, config, tokenizer, chat template."""

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


LINEAGE = "layerwright.json"  # in every checkpoint: its base, plan, and calibration and training


class CheckpointRef(TreeRef):
    """A converted checkpoint. Transformers loads it without this project installed."""

    base_sha256: str
    plan_sha256: str


class TextRef(TreeRef):
    """A text: a folder with ``documents.jsonl``, or with the source's files unchanged.

    Each line of ``documents.jsonl`` is ``{"text": ...}``, ``{"messages": [...]}`` or ``{"item":
    {...}, "at": "file:line"}``.
    """

    source: str
    documents: int
    characters: int


class Calibration(Contract):
    """Calibration data: ``rows`` rows of ``row_tokens`` tokens, which strategies fit tensors on."""

    text: TextRef
    rows: int
    row_tokens: int
