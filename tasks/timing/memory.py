"""The most memory that a piece of work takes, beyond what was held before it.

It is what PyTorch's allocator hands out, on CUDA by its own count, on a CPU by the profiler's
record of every block taken and given back. So it is the same in each run and on both: pages that
the C library keeps to itself once they are free, and scratch space of BLAS, are no part of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

BLOCK = "[memory]"  # the profiler's name of a block that was taken or given back


@dataclass
class Peak:
    """``nbytes`` is known once the work is done."""

    nbytes: int = 0


@contextmanager
def peak_memory(device: str) -> Iterator[Peak]:
    """What the block takes at its peak on ``device``. It slows the work on a CPU down."""
    peak = Peak()
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield peak
        peak.nbytes = torch.cuda.max_memory_allocated(device) - before
        return
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it tells its start and stop on stderr
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        yield peak
    events = recorded.profiler.kineto_results.events()
    blocks = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == BLOCK)
    peak.nbytes = max(accumulate(nbytes for _, nbytes in blocks), default=0)


def weight_bytes(model: nn.Module) -> int | None:
    """Of parameters and buffers, shared ones once; None where layers are read in turn."""
    tensors = [*model.parameters(), *model.buffers()]
    if any(tensor.is_meta for tensor in tensors):
        return None
    storages = [tensor.untyped_storage() for tensor in tensors]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
