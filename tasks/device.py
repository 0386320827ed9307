"""Devices: resolve ``auto``, and describe the device that timings depend on."""

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path


def resolve_device(wanted: str) -> str:
    """``auto`` becomes ``cuda`` if there is a CUDA device, and ``cpu`` otherwise."""
    if wanted != "auto":
        return wanted
    import torch  # here, because it is slow to import and a cached run does not need it

    return "cuda" if torch.cuda.is_available() else "cpu"


def device_name(device: str) -> str:
    """The accelerator's model, or the processor's with its core count."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    listing = Path("/proc/cpuinfo")  # on Linux
    names = re.findall(r"model name\s*: (.+)", listing.read_text()) if listing.is_file() else []
    processor = " ".join(names[0].split()) if names else platform.machine()
    return f"{processor}, {os.cpu_count()} cores"


def timed_on(device: str) -> dict[str, str]:
    """Device, threads and library versions, on which timings depend."""
    import torch

    return {
        "device": device_name(device),
        "threads": str(torch.get_num_threads()),
        **{name: version(name) for name in ("torch", "transformers")},
    }
