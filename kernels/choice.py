"""Chooses the implementation of an operator by device, dtype and head size, and names operators.

By default `triton` runs on a CUDA device that supports it, and `blockwise` (torch) everywhere else.
The environment variable LAYERWRIGHT_KERNELS overrides the choice. `reference` is the definition of
the operator, for tests.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

ORIGINAL = "layerwright.kernels.choice"  # this module's name outside a checkpoint
VARIABLE = "LAYERWRIGHT_KERNELS"
NAMES = ("reference", "blockwise", "triton")
TRITON_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
MAX_CHANNELS = 256
MIN_CAPABILITY = (8, 0)  # bf16 and tf32 on matrix units

_records: list[dict[str, set[str]]] = []


def choose_implementation(
    operator: str, implementations: Mapping[str, Any], tensor: Tensor, channels: int
) -> Callable:
    """Returns the implementation of an operator to run.

    Args:
        implementations: the operator's implementations by name; `blockwise` is always there.
        tensor: an input; its device and dtype decide.
        channels: the largest head size among the inputs.

    Raises:
        ValueError: LAYERWRIGHT_KERNELS is unknown, or triton where the kernels cannot run.
    """
    requested = os.environ.get(VARIABLE)
    if requested is not None and requested not in NAMES:
        raise ValueError(
            f"{VARIABLE}={requested!r} is not one of {list(NAMES)}; set one of these or unset it"
        )
    name = "blockwise" if requested is None or requested not in implementations else requested
    if "triton" in implementations and requested in (None, "triton"):
        index = tensor.device.index or 0
        obstacle = triton_obstacle(tensor.device.type, index, tensor.dtype, channels)
        if obstacle is None and (requested == "triton" or tensor.device.type == "cuda"):
            name = "triton"
        elif requested == "triton":
            raise ValueError(f"{VARIABLE}=triton, but {operator} cannot use it: {obstacle}")
    if not torch.compiler.is_compiling():
        for record in _records:
            record.setdefault(operator, set()).add(name)
    return implementations[name]


@torch.compiler.assume_constant_result
def triton_obstacle(
    device: str, index: int = 0, dtype: torch.dtype = torch.bfloat16, channels: int = 128
) -> str | None:
    """Returns why the Triton kernels cannot run, or None if they can.

    Args:
        device: "cuda", or "cpu", where only Triton's interpreter runs them.
        dtype, channels: dtype and largest head size of the inputs.
    """
    if find_spec("triton") is None:
        return "the package triton is not installed"
    if dtype not in TRITON_DTYPES:
        return f"the kernels do not support {str(dtype).removeprefix('torch.')}"
    if channels > MAX_CHANNELS:
        return f"heads of {channels} channels exceed the limit of {MAX_CHANNELS}"
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if device == "cuda":
        if interpreted:
            return "Triton's interpreter (TRITON_INTERPRET=1) works on CPU tensors only"
        if torch.version.hip is not None:
            return "the kernels support NVIDIA devices only"
        capability = torch.cuda.get_device_capability(index)
        if capability >= MIN_CAPABILITY:
            return None
        return f"compute capability {capability} is below 8.0"
    if interpreted:
        return None
    return f"on {device} the kernels run in Triton's interpreter only (TRITON_INTERPRET=1)"


@contextmanager
def implementations_run() -> Iterator[dict[str, set[str]]]:
    """Yields the implementations, by operator, that run within the block; no compiled code."""
    record: dict[str, set[str]] = {}
    _records.append(record)
    try:
        yield record
    finally:
        _records.remove(record)


def operator_name(name: str) -> str:
    """`layerwright::name` in this package; a distinct name in each checkpoint's copy.

    A process may load several checkpoints, and the operators of one must not replace another's.
    """
    copy = "" if __name__ == ORIGINAL else "_" + sha256(__name__.encode()).hexdigest()[:8]
    return f"layerwright{copy}::{name}"
