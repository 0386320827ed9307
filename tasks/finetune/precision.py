"""The dtypes of a training, and a warning if the CPU emulates bfloat16."""

from collections.abc import Sequence

import torch
from torch.utils.benchmark import Timer

from layerwright.tasks.recipe.training import TrainingStage

EMULATED = 3.0  # slowdown against float32; bfloat16 in hardware is about as fast, or faster
SIDE = 512  # of the matrices in the timed products: 0.2 s if they are emulated


def loaded_dtype(device: str, stages: tuple[TrainingStage, ...]) -> torch.dtype | None:
    """Dtype to load the weights in; None: their stored dtype. On the CPU, fp32 is fastest."""
    float32 = device == "cpu" or any(stage.precision == "float32" for stage in stages)
    return torch.float32 if float32 else None


def compute_dtype(device: str, stored: torch.dtype, stage: TrainingStage) -> torch.dtype | None:
    """Autocast dtype of a stage, or None; ``auto`` is bf16 for 16-bit weights on a GPU."""
    if stage.precision == "auto":
        return torch.bfloat16 if device != "cpu" and stored.itemsize == 2 else None
    return torch.bfloat16 if stage.precision == "bfloat16" else None


def emulation(device: str, stages: Sequence[TrainingStage]) -> str | None:
    """A warning if a stage asks for bfloat16 on a CPU without instructions for it; else None. On a
    CPU with AVX2 alone, the products took 14 to 41 times as long as those in float32.
    """
    if device != "cpu" or all(stage.precision != "bfloat16" for stage in stages):
        return None
    slowdown = bfloat16_slowdown()
    if slowdown < EMULATED:
        return None
    return (
        f"this processor emulates bfloat16: products take {slowdown:.0f} times as long as in "
        "float32; set precision: float32"
    )


def bfloat16_slowdown() -> float:
    """Median time of a bfloat16 product on this CPU, divided by that of a float32 product."""
    seconds = []
    for dtype in (torch.float32, torch.bfloat16):
        factor = torch.ones(SIDE, SIDE, dtype=dtype)
        timer = Timer("a @ a", globals={"a": factor}, num_threads=torch.get_num_threads())
        seconds.append(timer.blocked_autorange(min_run_time=0.05).median)
    return seconds[1] / seconds[0]
