"""The results of the commands on one checkpoint: inspection, export, generated text."""

from __future__ import annotations

from typing import Any

from layerwright.tasks.contracts.base import Contract


class Share(Contract):
    """An amount, the same of the model with full attention in every layer, and their ratio."""

    amount: int | float
    full_attention: int | float
    ratio: float


class LayerRun(Contract):
    """Equal layers in a row, ``start`` to ``stop`` (exclusive), with the options of their parts."""

    start: int
    stop: int
    mixer: dict[str, Any]
    feed_forward: dict[str, Any]


class StoredWeights(Contract):
    """The weight files of a checkpoint, by their headers."""

    files: int
    tensors: int
    elements: int
    bytes: int


class Inspection(Contract):
    """A converted checkpoint: layers, capabilities, memory and size.

    ``kv_bytes`` are by context length, for one row without padding in the checkpoint's dtype.
    ``parameters`` counts tied weights once.
    """

    checkpoint: str
    base_model_type: str
    layers: int
    max_position_embeddings: int
    dtype: str
    layer_map: tuple[LayerRun, ...]
    capabilities: dict[str, Any]
    kv_bytes_per_token: Share
    kv_bytes: dict[str, Share]
    parameters: Share
    stored: StoredWeights


class Exported(Contract):
    """An exported checkpoint, and the relative RMS of its logits to those of the original."""

    to: str
    folder: str
    model_type: str
    layers: int
    relative_rms: float


class ExportedGguf(Exported):
    """A GGUF file; ``outtype`` is the type of its weights."""

    outtype: str


class Generated(Contract):
    """A continued prompt. ``text`` is without the prompt; ``seconds`` without loading.

    ``peak_weight_bytes`` are on the device; ``kv_bytes`` are of the cache at the end.
    """

    text: str
    new_tokens: int
    seconds: float
    tokens_per_s: float
    peak_weight_bytes: int
    kv_bytes: int
