"""Peak memory of a block of code, beyond the memory in use before it.

Measured as PyTorch's allocations: on CUDA by the allocator's statistics, on a CPU by the profiler's
record of every allocation. The result is therefore the same in every run. It does not include pages
that the C library keeps after a free, or scratch space of BLAS.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

BLOCK = "[memory]"  # the profiler's name of an allocation or a free


@dataclass
class Peak:
    """Peak memory; ``nbytes`` is set when the block ends."""

    nbytes: int = 0


@contextmanager
def peak_memory(device: str) -> Iterator[Peak]:
    """Measures the block's peak memory on ``device``. On a CPU this slows the block down."""
    peak = Peak()
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield peak
        peak.nbytes = torch.cuda.max_memory_allocated(device) - before
        return
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # hides the profiler's messages on stderr
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        yield peak
    events = recorded.profiler.kineto_results.events()
    blocks = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == BLOCK)
    peak.nbytes = max(accumulate(nbytes for _, nbytes in blocks), default=0)


def weight_bytes(model: nn.Module) -> int | None:
    """Bytes of parameters and buffers, shared ones once; None if layers are offloaded."""
    tensors = [*model.parameters(), *model.buffers()]
    if any(tensor.is_meta for tensor in tensors):
        return None
    storages = [tensor.untyped_storage() for tensor in tensors]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
