"""The results of the commands on one checkpoint: inspection, export, generated text."""

from typing import Any

from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.contracts.references import TreeRef


class Share(Contract):
    """An amount of the hybrid, that of the same model with full attention, and their ratio."""

    amount: int | float
    full_attention: int | float
    ratio: float


class LayerRun(Contract):
    """Consecutive equal layers, ``start`` to ``stop`` (exclusive), with their parts' options."""

    start: int
    stop: int
    mixer: dict[str, Any]
    feed_forward: dict[str, Any]


class StoredWeights(Contract):
    """Counts over a checkpoint's weight files, read from their headers."""

    files: int
    tensors: int
    elements: int
    bytes: int


class Inspection(Contract):
    """A converted checkpoint: layers, capabilities, memory and size."""

    checkpoint: str
    base_model_type: str
    layers: int
    max_position_embeddings: int
    dtype: str
    layer_map: tuple[LayerRun, ...]
    capabilities: dict[str, Any]
    kv_bytes_per_token: Share
    kv_bytes: dict[str, Share]  # by context length; one row without padding, in the own dtype
    parameters: Share  # tied weights count once
    stored: StoredWeights


class Exported(Contract):
    """An exported checkpoint; ``relative_rms`` compares its logits with the original's."""

    to: str
    folder: str
    model_type: str
    layers: int
    relative_rms: float


class ServedForm(TreeRef):
    """What the registry's version points at: a checkpoint's stock form, or the checkpoint."""

    model_type: str
    relative_rms: float | None = None  # of the stock form's logits; None for the checkpoint itself


class ExportedGguf(Exported):
    """A GGUF file; ``outtype`` is the type of its weights."""

    outtype: str


class Generated(Contract):
    """The continuation of a prompt."""

    text: str  # without the prompt
    new_tokens: int
    seconds: float  # without loading
    tokens_per_s: float
    peak_weight_bytes: int  # on the device
    kv_bytes: int  # the cache's size at the end
