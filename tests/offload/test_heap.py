"""Freed memory goes back to the system, where the C library is glibc."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

KEPT = """
import sys
from pathlib import Path
import torch
from layerwright.tasks.offload.offload import return_freed_memory

def private():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

if sys.argv[1] == "return":
    return_freed_memory()
torch.ones(30_000_000, dtype=torch.uint8)  # freed: from now on glibc keeps what is smaller
before = private()
blocks = [torch.ones(4_000_000, dtype=torch.uint8) for _ in range(20)]
last = torch.ones(4_000_000, dtype=torch.uint8)  # above all the others
blocks.clear()
print(private() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_a_block_that_is_freed_is_given_back() -> None:
    def left(how: str) -> int:
        command = [sys.executable, "-c", KEPT, how]
        root = Path(__file__).parents[2]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert left("keep") > 60_000_000
    assert left("return") < 10_000_000
