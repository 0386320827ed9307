"""What arithmetic a training runs in, and whether the processor has it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.utils.benchmark import Timer

from layerwright.tasks.recipe.training import TrainingStage

EMULATED = 3.0  # times as slow as float32; hardware's bfloat16 is about as fast or faster
_SIDE = 512  # of the products that are timed: 0.2 s where they are emulated


def loaded_dtype(device: str, stages: tuple[TrainingStage, ...]) -> torch.dtype | None:
    """What weights are loaded in; None keeps what they are stored in.

    On the CPU fp32 is the faster one, whatever they are stored in.
    """
    wide = device == "cpu" or any(stage.precision == "float32" for stage in stages)
    return torch.float32 if wide else None


def compute_dtype(device: str, stored: torch.dtype, stage: TrainingStage) -> torch.dtype | None:
    """Autocast's dtype for a stage: ``auto`` is bf16 for weights stored in 16 bits on a GPU."""
    if stage.precision == "auto":
        return torch.bfloat16 if device != "cpu" and stored.itemsize == 2 else None
    return torch.bfloat16 if stage.precision == "bfloat16" else None


def emulation(device: str, stages: Sequence[TrainingStage]) -> str | None:
    """What to tell a user who asked for bfloat16 on a CPU without it; None if all is well.

    Torch has such products everywhere; without instructions for them (AVX-512 BF16, AMX) they took
    14 to 41 times as long as in float32 on a CPU with AVX2.
    """
    if device != "cpu" or all(stage.precision != "bfloat16" for stage in stages):
        return None
    return told(bfloat16_slowdown())


def told(slowdown: float) -> str | None:
    """The line on a slowdown; None where it is none."""
    if slowdown < EMULATED:
        return None
    return (
        f"this processor has no bfloat16 products, they take {slowdown:.0f} times as long as "
        "float32; precision: float32 is the faster one here"
    )


def bfloat16_slowdown() -> float:
    """Time of a product in bfloat16 over that in float32 on this CPU: medians of a few."""
    seconds = []
    for dtype in (torch.float32, torch.bfloat16):
        factor = torch.ones(_SIDE, _SIDE, dtype=dtype)
        timer = Timer("a @ a", globals={"a": factor}, num_threads=torch.get_num_threads())
        seconds.append(timer.blocked_autorange(min_run_time=0.05).median)
    return seconds[1] / seconds[0]
