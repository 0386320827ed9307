"""What a step's plain function is given beside its inputs. It knows no orchestrator."""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from tasks.store import Store
from tasks.tracking import Tracking


def _silent(message: str) -> None:
    """Default log: a notebook or a test need not hear of it."""


@dataclass(frozen=True)
class Context:
    """Where a step works.

    Attributes:
        store: where inputs are read from and results go.
        workdir: a folder of this step and these inputs alone. It survives a kill, so that the
            next attempt can go on from what it finds there, and is removed on success.
        seed: from the recipe.
        device: ``cpu``, ``cuda``, ``cuda:1``, ...
        processes: how many share a training.
        memory_bytes: bound on the weights that the device holds; None for no bound.
        tracking: where a training's live metrics go; None for nowhere.
        log: one line about progress, for people.
    """

    store: Store
    workdir: Path
    seed: int = 0
    device: str = "cpu"
    processes: int = 1
    memory_bytes: int | None = None
    tracking: Tracking | None = None
    log: Callable[[str], None] = _silent

    def folder(self, name: str) -> Path:
        """A new empty folder in the workdir, whatever an earlier attempt left there."""
        path = self.workdir / name
        if path.exists():
            shutil.rmtree(path)
        path.mkdir(parents=True)
        return path


def resolve_device(wanted: str) -> str:
    """``auto`` becomes cuda where there is one, else cpu."""
    if wanted != "auto":
        return wanted
    import torch  # late: a run whose steps are all cached never needs it

    return "cuda" if torch.cuda.is_available() else "cpu"


def device_name(device: str) -> str:
    """The accelerator's model, or the processor's with its core count."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {os.cpu_count()} cores"


def _processor() -> str:
    """Linux's name for it, without runs of spaces; elsewhere its kind."""
    listing = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.+)", listing.read_text()) if listing.is_file() else []
    return " ".join(names[0].split()) if names else platform.machine()


def timed_on(device: str) -> dict[str, str]:
    """What timings depend on besides code and inputs: device, threads, versions of libraries."""
    import torch

    return {
        "device": device_name(device),
        "threads": str(torch.get_num_threads()),
        **{name: version(name) for name in ("torch", "transformers")},
    }
