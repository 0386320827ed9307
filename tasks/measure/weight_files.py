"""Where each tensor of a checkpoint lies in its safetensors files, and reading one into memory.

Tensors are read, not mapped: a mapped one is fetched only when it is first used, which would leave
a prefetch with nothing done, and a fault of the disk under a map kills the process without a word.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tasks.errors import IntegrityError, StepError

ONE_FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"
DTYPES = {  # safetensors' names of the dtypes that a model here may have
    "F64": torch.float64,
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
}


@dataclass(frozen=True)
class StoredTensor:
    """One tensor in a file.

    Attributes:
        offset_bytes: of its first byte in the file.
    """

    file: Path
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset_bytes: int

    def read_into(self, target: Tensor) -> None:
        """Fills a contiguous CPU tensor of the same shape; another dtype is converted to.

        Raises:
            IntegrityError: the file ends before the tensor does.
            StepError: the file cannot be read.
        """
        raw = target
        if target.dtype != self.dtype:
            raw = torch.empty(self.shape, dtype=self.dtype)
        view = memoryview(raw.view(-1).view(torch.uint8).numpy())
        done = 0
        try:
            with open(self.file, "rb", buffering=0) as file:
                file.seek(self.offset_bytes)
                while done < len(view):  # the system reads 2 GB at most in one go
                    count = file.readinto(view[done:])
                    if not count:
                        raise IntegrityError(f"{self.file}: cut off inside {self.name}")
                    done += count
        except OSError as error:
            raise StepError(f"{self.file}: cannot read {self.name}: {error.strerror}") from error
        if raw is not target:
            target.copy_(raw)


def find_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of a checkpoint by name, from the headers of its files alone.

    Args:
        folder: holds ``model.safetensors``, or an index and the files that it names.

    Raises:
        IntegrityError: a file is missing, cut off or not safetensors, or lacks a tensor that the
            index says it holds; the message names file and tensor.
    """
    index = folder / INDEX
    if not index.is_file():
        return _read_header(folder / ONE_FILE)
    where = json.loads(index.read_bytes())["weight_map"]
    tensors: dict[str, StoredTensor] = {}
    for name in sorted(set(where.values())):
        tensors |= _read_header(folder / name)
    for name, file in where.items():
        if name not in tensors:
            raise IntegrityError(f"{folder / file}: {name} is missing; {INDEX} says it is there")
    return tensors


def _read_header(file: Path) -> dict[str, StoredTensor]:
    if not file.is_file():
        raise IntegrityError(f"{file}: this file of weights is missing")
    size = file.stat().st_size
    with open(file, "rb") as opened:
        start = 8 + int.from_bytes(opened.read(8), "little")
        if size < start:
            raise IntegrityError(f"{file}: not a safetensors file, or cut off inside its header")
        try:
            header = json.loads(opened.read(start - 8))
        except ValueError:
            raise IntegrityError(f"{file}: not a safetensors file") from None
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in DTYPES:
            raise IntegrityError(
                f"{file}: {name} is stored as {entry['dtype']}, not as one of {', '.join(DTYPES)}"
            )
        first, last = entry["data_offsets"]
        if start + last > size:
            raise IntegrityError(
                f"{file}: cut off: {name} ends at byte {start + last}, the file has {size}"
            )
        dtype, shape = DTYPES[entry["dtype"]], tuple(entry["shape"])
        if last - first != torch.Size(shape).numel() * dtype.itemsize:
            raise IntegrityError(f"{file}: {name} has {last - first} bytes for the shape {shape}")
        tensors[name] = StoredTensor(file, name, dtype, shape, start + first)
    return tensors
