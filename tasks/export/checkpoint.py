"""A converted checkpoint in a folder: its config and the headers of its files; nothing loaded."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path

from tasks.errors import InputError, IntegrityError
from tasks.hybrid.configuration import HybridConfig

CONFIG, INDEX, MANIFEST = "config.json", "model.safetensors.index.json", "manifest.json"
LENGTH_BYTES = 8  # before the header: its length, little-endian


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
            model_type = fields.get("model_type")
            if model_type != HybridConfig.model_type:
                raise InputError(
                    f"model_type is {model_type!r}: this checkpoint was not converted",
                    where=str(config),
                    expected=repr(HybridConfig.model_type),
                )
            return cls(folder, HybridConfig.from_dict(fields), stored_tensors(folder))
        except (ValueError, AttributeError) as error:
            raise InputError(str(error), where=str(config)) from error

    @property
    def element_bytes(self) -> int:
        """Bytes of an element of a key or value: of the dtype that the model is loaded in."""
        return self.config.dtype.itemsize if self.config.dtype else 4


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of a folder's safetensors files by name, from their headers alone.

    Raises:
        IntegrityError: no such file, or one without a readable header.
    """
    tensors: dict[str, StoredTensor] = {}
    files = sorted(folder.glob("*.safetensors"))
    for file in files:
        for name, entry in _header(file).items():
            if name != "__metadata__":
                start, stop = entry["data_offsets"]
                shape = tuple(entry["shape"])
                tensors[name] = StoredTensor(file, entry["dtype"], shape, stop - start)
    if not tensors:
        raise IntegrityError(f"{folder}: no weights: {len(files)} safetensors files")
    return tensors


def _header(file: Path) -> dict:
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(LENGTH_BYTES), "little")
        if length > file.stat().st_size:
            raise IntegrityError(f"{file}: not a safetensors file, or cut off in its header")
        try:
            return json.loads(opened.read(length))
        except ValueError as error:
            raise IntegrityError(f"{file}: no safetensors header: {error}") from error
