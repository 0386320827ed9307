"""Copy or convert safetensors weights without holding a whole model in memory."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from layerwright.tasks.errors import InputError
from layerwright.tasks.models.weight_files import DTYPES, StoredTensor, read_header, write_index
from layerwright.tasks.progress import progress

SHARD_BYTES = 2 * 10**9  # a conversion holds at most this much in memory, plus a single tensor
# safetensors' names of the dtypes that a checkpoint may have
STORED = DTYPES | {"I64": torch.int64, "I32": torch.int32, "U8": torch.uint8, "BOOL": torch.bool}


def read_headers(files: list[Path]) -> dict[str, StoredTensor]:
    """Read the header of every tensor in the files, but no tensor.

    InputError if a file is not safetensors or is truncated, two files hold the same tensor, or a
    dtype is not in STORED (the weights are quantised).
    """
    tensors: dict[str, StoredTensor] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt"):  # it checks that the file is complete
                header = read_header(file)
        except SafetensorError as error:
            raise InputError(f"{file.name} is not a complete safetensors file: {error}") from error
        for name, tensor in sorted(header.items()):
            if name in tensors:
                raise InputError(
                    f"{file.name} and {tensors[name].file.name} both hold {name}",
                    expected="each tensor in a single file",
                )
            if tensor.dtype not in STORED:
                raise InputError(
                    f"{file.name} stores {name} as {tensor.dtype}",
                    expected="weights in float32, bfloat16 or float16, or a GGUF file",
                )
            tensors[name] = tensor
    return tensors


def same_values(tensors: dict[str, StoredTensor], first: str, second: str) -> bool:
    """Return whether two stored tensors are equal in shape, dtype and every element."""
    a, b = tensors[first], tensors[second]
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return False
    return torch.equal(_load(a.file, first), _load(b.file, second))


def write_weights(
    tensors: dict[str, StoredTensor], keep: list[str], folder: Path, dtype: str | None
) -> None:
    """Write the tensors ``keep`` as ``model.safetensors``, or as shards with an index.

    If no tensor is dropped or converted, the files are copied without being loaded. Otherwise the
    tensors are loaded shard by shard. ``dtype``: dtype of the written floating-point tensors
    (``float32``, ...); None keeps theirs.
    """
    floating = [STORED[t.dtype] for t in tensors.values() if STORED[t.dtype].is_floating_point]
    unchanged = dtype is None or all(stored == getattr(torch, dtype) for stored in floating)
    if len(keep) == len(tensors) and unchanged:
        files = sorted({tensor.file for tensor in tensors.values()})
        shards = [[n for n in tensors if tensors[n].file == file] for file in files]
        for file, name in zip(files, _shard_names(len(files)), strict=True):
            _copy(file, folder / name)
    else:
        shards = list(_shards(tensors, sorted(keep), dtype))
        _convert(tensors, shards, folder, dtype)
    if len(shards) > 1:
        names = _shard_names(len(shards))
        where = {n: file for file, shard in zip(names, shards, strict=True) for n in shard}
        write_index(folder, where, sum(_bytes(tensors[name], dtype) for name in keep))


def _convert(
    tensors: dict[str, StoredTensor], shards: list[list[str]], folder: Path, dtype: str | None
) -> None:
    with progress() as bar:
        job = bar.add_task("write weights", total=sum(map(len, shards)))
        for file, names in zip(_shard_names(len(shards)), shards, strict=True):
            held = {}
            for name in names:
                tensor = _load(tensors[name].file, name)
                if dtype is not None and tensor.is_floating_point():
                    tensor = tensor.to(getattr(torch, dtype))
                held[name] = tensor
                bar.advance(job)
            save_file(held, folder / file, metadata={"format": "pt"})
            (folder / file).chmod(0o644)  # safetensors makes files readable by their owner only


def _shards(
    tensors: dict[str, StoredTensor], names: list[str], dtype: str | None
) -> Iterator[list[str]]:
    shard: list[str] = []
    size = 0
    for name in names:
        more = _bytes(tensors[name], dtype)
        if shard and size + more > SHARD_BYTES:
            yield shard
            shard, size = [], 0
        shard.append(name)
        size += more
    yield shard


def _bytes(tensor: StoredTensor, dtype: str | None) -> int:
    stored = STORED[tensor.dtype]
    kept = getattr(torch, dtype) if dtype and stored.is_floating_point else stored
    return tensor.elements * kept.itemsize


def _load(file: Path, name: str) -> torch.Tensor:
    with safe_open(file, framework="pt") as opened:
        return opened.get_tensor(name)


def _shard_names(count: int) -> list[str]:
    if count == 1:
        return ["model.safetensors"]
    return [f"model-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)]


def _copy(source: Path, target: Path) -> None:
    """Hard-link a file of the workdir; copy it if it cannot be hard-linked, or is a symlink. A
    symlink leads to a file of the user, which the store must not share.
    """
    try:
        if source.is_symlink():
            raise OSError("a file of the user")
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    target.chmod(0o644)
