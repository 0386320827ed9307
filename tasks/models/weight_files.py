"""Finds the tensors of a checkpoint in its safetensors files and reads single tensors.

Tensors are read, not memory-mapped: a disk error under a map kills the process without a message.
"""

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from torch import Tensor

from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.errors import IntegrityError, StepError

ONE_FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"
DTYPES = {  # by their safetensors names; the dtypes that are supported
    "F64": torch.float64,
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
}


Extent = Annotated[int, Field(ge=0, lt=2**63, strict=True)]
ENTRIES = TypeAdapter(dict[str, Any])


class WeightIndex(BaseModel):
    """The checkpoint's index: the file of each tensor."""

    weight_map: dict[str, str]


class HeaderEntry(Contract):
    """One tensor's entry in a header; offsets are counted from the end of the header."""

    dtype: str
    shape: tuple[Extent, ...]
    data_offsets: tuple[Extent, Extent]


@dataclass(frozen=True)
class StoredTensor:
    """One tensor in a file.

    Attributes:
        dtype: safetensors' name, such as ``BF16``.
        start: position of its first byte in the file.
    """

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    nbytes: int

    @property
    def elements(self) -> int:
        return prod(self.shape)

    def read_into(self, target: Tensor) -> None:
        """Fills a contiguous CPU tensor of the same shape, with conversion to its dtype.

        Raises:
            IntegrityError: the file ends inside the tensor.
            StepError: the file cannot be read.
        """
        dtype = DTYPES[self.dtype]
        raw = target if target.dtype == dtype else torch.empty(self.shape, dtype=dtype)
        array: Any = raw.view(-1).view(torch.uint8).numpy()
        view = memoryview(array)
        done = 0
        try:
            with open(self.file, "rb", buffering=0) as file:
                file.seek(self.start)
                while done < len(view):  # one call reads at most 2 GB
                    count = file.readinto(view[done:])
                    if not count:
                        raise IntegrityError(f"{self.file}: cut off inside {self.name}")
                    done += count
        except OSError as error:
            raise StepError(f"{self.file}: cannot read {self.name}: {error.strerror}") from error
        if raw is not target:
            target.copy_(raw)


def find_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of a checkpoint by name, from the headers of its files.

    Args:
        folder: holds ``model.safetensors``, or an index and the files that it names.

    Raises:
        IntegrityError: a file is missing, truncated or not safetensors, or lacks a tensor that the
            index assigns to it; the message names file and tensor.
    """
    index = folder / INDEX
    if not index.is_file():
        return _tensors_of(folder / ONE_FILE)
    try:
        file_of = WeightIndex.model_validate_json(index.read_bytes()).weight_map
    except ValidationError as error:
        raise IntegrityError(
            f"{index}: not a valid index of weights: {error.errors()[0]['msg']}"
        ) from error
    tensors: dict[str, StoredTensor] = {}
    for name in sorted(set(file_of.values())):
        if not name or Path(name).name != name:
            raise IntegrityError(f"{index}: names {name!r}, outside its folder")
        tensors |= _tensors_of(folder / name)
    for name, file in file_of.items():
        if name not in tensors:
            raise IntegrityError(f"{folder / file}: {name} is missing; {INDEX} says it is there")
    return tensors


def write_index(folder: Path, files: dict[str, str], total_bytes: int) -> None:
    """Writes the checkpoint's index: the file of each tensor."""
    index = {"metadata": {"total_size": total_bytes}, "weight_map": dict(sorted(files.items()))}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def read_header(file: Path) -> dict[str, StoredTensor]:
    """The tensors in a safetensors header, by name; the data may be missing.

    Raises:
        IntegrityError: the file is missing, truncated inside its header, or not safetensors.
    """
    if not file.is_file():
        raise IntegrityError(f"{file}: this file of weights is missing")
    with open(file, "rb") as opened:
        start = 8 + int.from_bytes(opened.read(8), "little")
        if file.stat().st_size < start:
            raise IntegrityError(f"{file}: not a safetensors file, or cut off inside its header")
        try:
            entries = ENTRIES.validate_json(opened.read(start - 8))
            entries.pop("__metadata__", None)
            header = {n: HeaderEntry.model_validate(entry) for n, entry in entries.items()}
        except ValidationError as error:
            raise IntegrityError(
                f"{file}: not a safetensors file: {error.errors()[0]['msg']}"
            ) from error
    tensors = {}
    for name, entry in header.items():
        first, end = entry.data_offsets
        if end < first:
            raise IntegrityError(f"{file}: {name} ends before it begins")
        place = start + first, end - first
        tensors[name] = StoredTensor(file, name, entry.dtype, entry.shape, *place)
    return tensors


def _tensors_of(file: Path) -> dict[str, StoredTensor]:
    tensors = read_header(file)
    size = file.stat().st_size
    for name, tensor in tensors.items():
        end = tensor.start + tensor.nbytes
        if end > size:
            raise IntegrityError(f"{file}: cut off: {name} ends at byte {end}, the file has {size}")
        if tensor.dtype not in DTYPES:
            raise IntegrityError(
                f"{file}: {name} is stored as {tensor.dtype}, not as one of {', '.join(DTYPES)}"
            )
        if tensor.nbytes != tensor.elements * DTYPES[tensor.dtype].itemsize:
            raise IntegrityError(
                f"{file}: {name} has {tensor.nbytes} bytes for the shape {tensor.shape}"
            )
    return tensors
