"""A converted checkpoint in a folder: its config and the headers of its files; nothing loaded."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path

from layerwright.tasks.errors import InputError, IntegrityError
from layerwright.tasks.hybrid.configuration import HybridConfig
from layerwright.tasks.models.weight_files import read_header

CONFIG, INDEX, MANIFEST = "config.json", "model.safetensors.index.json", "manifest.json"


@dataclass(frozen=True)
class StoredTensor:
    """What a file's header says of a tensor; ``dtype`` is safetensors' own name: ``BF16``."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    nbytes: int

    @property
    def elements(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True)
class Checkpoint:
    """A converted checkpoint, opened but not loaded."""

    folder: Path
    config: HybridConfig
    tensors: dict[str, StoredTensor]

    @classmethod
    def open(cls, folder: Path) -> Checkpoint:
        """Reads the config and the headers of the weight files.

        Raises:
            InputError: the folder holds no converted checkpoint, or one of a newer format.
            IntegrityError: a header cannot be read, or there are no weights.
        """
        config = folder / CONFIG
        if not config.is_file():
            raise InputError(
                f"{folder} is not a checkpoint: it has no {CONFIG}",
                remedy="give a folder that a conversion wrote, or a run: `layerwright runs`",
            )
        try:
            fields = json.loads(config.read_bytes())
        except (ValueError, RecursionError) as error:
            raise InputError(str(error), where=str(config), expected="a JSON object") from error
        model_type = fields.get("model_type") if isinstance(fields, dict) else None
        if model_type != HybridConfig.model_type:
            raise InputError(
                f"model_type is {model_type!r}: this checkpoint was not converted",
                where=str(config),
                expected=repr(HybridConfig.model_type),
            )
        try:
            read = HybridConfig.from_dict(fields)
        except Exception as error:  # Transformers checks each field in its own way
            raise InputError(f"cannot be used: {error}", where=str(config)) from error
        return cls(folder, read, stored_tensors(folder))

    @property
    def element_bytes(self) -> int:
        """Bytes of an element of a key or value: of the dtype that the model is loaded in."""
        return self.config.dtype.itemsize if self.config.dtype else 4


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of a folder's safetensors files by name, from their headers alone.

    Raises:
        IntegrityError: no such file, or one without a readable header.
    """
    files = sorted(folder.glob("*.safetensors"))
    tensors = {
        name: StoredTensor(file, entry.dtype, entry.shape, entry.nbytes)
        for file in files
        for name, entry in read_header(file).items()
    }
    if not tensors:
        raise IntegrityError(f"{folder}: no weights: {len(files)} safetensors files")
    return tensors
