"""Open and inspect a converted checkpoint, from its config and its files' headers alone."""

import json
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Self

import torch

from layerwright.tasks.contracts.checkpoint import Inspection, LayerRun, Share, StoredWeights
from layerwright.tasks.errors import InputError, IntegrityError
from layerwright.tasks.hybrid.cache import predicted_kv_bytes
from layerwright.tasks.hybrid.configuration import FULL_LAYER, HybridConfig
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.models.weight_files import StoredTensor, read_header

CONFIG, MANIFEST = "config.json", "manifest.json"
CONTEXTS = (1024, 8192, 32768, 131072)  # tokens; those above the model's maximum are left out
FAR = 2**20  # tokens, more than any window; above it a cache grows linearly


@dataclass(frozen=True)
class Checkpoint:
    """A converted checkpoint; its weights are not loaded."""

    folder: Path
    config: HybridConfig
    tensors: dict[str, StoredTensor]

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read the config and the headers of the weight files.

        Raises:
            InputError: the folder has no converted checkpoint, or one in a newer format.
            IntegrityError: a header cannot be read, or there are no weights.
        """
        config = folder / CONFIG
        if not config.is_file():
            raise InputError(
                f"{folder} is not a checkpoint: it has no {CONFIG}",
                remedy="give a converted checkpoint's folder, or a run (`layerwright runs`)",
            )
        try:
            fields = json.loads(config.read_bytes())
        except (ValueError, RecursionError) as error:
            raise InputError(str(error), where=str(config), expected="a JSON object") from error
        model_type = fields.get("model_type") if isinstance(fields, dict) else None
        if model_type != HybridConfig.model_type:
            raise InputError(
                f"model_type is {model_type!r}: Layerwright did not convert this checkpoint",
                where=str(config),
                expected=repr(HybridConfig.model_type),
            )
        try:
            read = HybridConfig.from_dict(fields)
        except Exception as error:  # Transformers raises many kinds of errors
            raise InputError(f"cannot be used: {error}", where=str(config)) from error
        files = sorted(folder.glob("*.safetensors"))
        tensors = {name: tensor for f in files for name, tensor in read_header(f).items()}
        if not tensors:
            raise IntegrityError(f"{folder} has no weights in its {len(files)} safetensors files")
        return cls(folder, read, tensors)

    @property
    def element_bytes(self) -> int:
        """Bytes per element of keys and values, in the dtype that the model is loaded in."""
        dtype = self.config.dtype
        return dtype.itemsize if isinstance(dtype, torch.dtype) else 4


def inspect_checkpoint(folder: Path, tokens: list[int] | None = None) -> Inspection:
    """Layers, capabilities, memory and size of a checkpoint, from its config and file headers.

    Shares are to the same model with full attention in every layer.

    Args:
        tokens: context lengths for the cache's size; by default CONTEXTS up to the model's maximum
            length, and that maximum.

    Raises:
        InputError: the folder has no converted checkpoint, its config is inconsistent, or a length
            is below 1.
    """
    checkpoint = Checkpoint.open(folder)
    config = checkpoint.config
    dense = dense_config(config)
    parameters = share_of(parameter_count(config), parameter_count(dense))
    longest = config.max_position_embeddings
    lengths = tokens or sorted({*(n for n in CONTEXTS if n < longest), longest})
    if (least := min(lengths)) < 1:
        raise InputError(f"a context length of {least}", where="--tokens", expected="1 or more")

    def kv_bytes(of: HybridConfig, length: int) -> int:
        return predicted_kv_bytes(of, length, 1, checkpoint.element_bytes)

    def growth(of: HybridConfig) -> float:
        return (kv_bytes(of, 2 * FAR) - kv_bytes(of, FAR)) / FAR

    stored = checkpoint.tensors.values()
    return Inspection(
        checkpoint=str(folder),
        base_model_type=config.base_model_type,
        layers=config.num_hidden_layers,
        max_position_embeddings=longest,
        dtype=str(config.dtype).removeprefix("torch."),
        layer_map=layer_map(config),
        capabilities=config.capabilities,
        kv_bytes_per_token=share_of(growth(config), growth(dense)),
        kv_bytes={str(n): share_of(kv_bytes(config, n), kv_bytes(dense, n)) for n in lengths},
        parameters=parameters,
        stored=StoredWeights(
            files=len({tensor.file for tensor in stored}),
            tensors=len(stored),
            elements=sum(tensor.elements for tensor in stored),
            bytes=sum(tensor.nbytes for tensor in stored),
        ),
    )


def layer_map(config: HybridConfig) -> tuple[LayerRun, ...]:
    """Runs of equal layers, in order."""
    runs = groupby(enumerate(config.layer_specs), key=lambda layer: layer[1])
    layers = ((spec, [index for index, _ in run]) for spec, run in runs)
    return tuple(LayerRun(start=run[0], stop=run[-1] + 1, **spec) for spec, run in layers)


def dense_config(config: HybridConfig) -> HybridConfig:
    """The same model with full attention in every layer."""
    full = [FULL_LAYER] * config.num_hidden_layers
    return HybridConfig.from_dict(config.to_dict() | {"layer_specs": full, "capabilities": None})


def parameter_count(config: HybridConfig) -> int:
    """The number of parameters of the model that a config describes, without allocating them."""
    try:
        with torch.device("meta"):
            model = HybridForCausalLM(config)
    except Exception as error:  # modules raise many kinds of errors
        raise InputError(
            f"the config describes no valid model: {error}", expected="consistent fields"
        ) from error
    model.tie_weights()
    return sum(parameter.numel() for parameter in model.parameters())


def share_of(amount: float, dense: float) -> Share:
    return Share(amount=amount, full_attention=dense, ratio=amount / dense)
