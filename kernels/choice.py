"""Which implementation of an operator runs: by device, dtype and head size, or as the user says.

`triton` on a CUDA device that can, `blockwise` (torch) everywhere else; LAYERWRIGHT_KERNELS names
another. `reference` is the definition, for tests.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec

import torch
from torch import Tensor

VARIABLE = "LAYERWRIGHT_KERNELS"
NAMES = ("reference", "blockwise", "triton")
FUSED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
MOST_CHANNELS = 256
LEAST_CAPABILITY = (8, 0)  # bf16 and tf32 on matrix units

_records: list[dict[str, set[str]]] = []


def chosen(
    operator: str, offered: Mapping[str, Callable], tensor: Tensor, channels: int
) -> Callable:
    """The implementation of an operator that is to run.

    Args:
        operator: its name.
        offered: its implementations by name; `blockwise` always among them.
        tensor: an input, of which device and dtype count.
        channels: the greatest size of a head.

    Raises:
        ValueError: LAYERWRIGHT_KERNELS names none of reference, blockwise and triton, or names
            triton where it cannot run.
    """
    wanted = os.environ.get(VARIABLE)
    if wanted is not None and wanted not in NAMES:
        raise ValueError(f"{VARIABLE}={wanted!r} is not one of {list(NAMES)}")
    name = wanted if wanted in offered else "blockwise"
    if "triton" in offered and wanted in (None, "triton"):
        index = tensor.device.index or 0
        obstacle = fused_obstacle(tensor.device.type, index, tensor.dtype, channels)
        if obstacle is None and (wanted == "triton" or tensor.device.type == "cuda"):
            name = "triton"
        elif wanted == "triton":
            raise ValueError(f"{VARIABLE}=triton, but {operator} cannot use it: {obstacle}")
    if not torch.compiler.is_compiling():
        for record in _records:
            record.setdefault(operator, set()).add(name)
    return offered[name]


@torch.compiler.assume_constant_result
def fused_obstacle(
    device: str, index: int = 0, dtype: torch.dtype = torch.bfloat16, channels: int = 128
) -> str | None:
    """Why the Triton kernels cannot run there, None if they can.

    Args:
        device: "cuda", or "cpu", where they run in Triton's interpreter alone.
        index: of the device.
        dtype, channels: of the inputs, as in `chosen`.
    """
    if find_spec("triton") is None:
        return "the package triton is not installed"
    if dtype not in FUSED_DTYPES:
        return f"it has no {str(dtype).removeprefix('torch.')}"
    if channels > MOST_CHANNELS:
        return f"heads of {channels} channels are larger than {MOST_CHANNELS}"
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if device == "cuda":
        if interpreted:
            return "its interpreter (TRITON_INTERPRET=1) is for tensors on a CPU"
        if torch.version.hip is not None:
            return "its kernels are written for NVIDIA"
        found = torch.cuda.get_device_capability(index)
        return None if found >= LEAST_CAPABILITY else f"compute capability {found} is below 8.0"
    if interpreted:
        return None
    return f"it has no {device}, except in its interpreter (TRITON_INTERPRET=1)"


@contextmanager
def implementations_run() -> Iterator[dict[str, set[str]]]:
    """By operator, the implementations that run within the block, compiled code excepted."""
    found: dict[str, set[str]] = {}
    _records.append(found)
    try:
        yield found
    finally:
        _records.remove(found)
