"""Open a converted checkpoint: its config and the headers of its files, without the weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from layerwright.tasks.errors import InputError, IntegrityError
from layerwright.tasks.hybrid.configuration import HybridConfig
from layerwright.tasks.models.weight_files import StoredTensor, read_header

CONFIG, INDEX, MANIFEST = "config.json", "model.safetensors.index.json", "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    """A converted checkpoint; its weights are not loaded."""

    folder: Path
    config: HybridConfig
    tensors: dict[str, StoredTensor]

    @classmethod
    def open(cls, folder: Path) -> Checkpoint:
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
