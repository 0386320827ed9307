"""Private memory of a process that passes rows through a model, with a bound and without."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import tiny_llama

ROOT = Path(__file__).resolve().parents[2]
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}  # others take memory of their own
PASS = """
import sys
from pathlib import Path
import torch
from layerwright.tasks.offload.offload import load_streamed
from layerwright.tasks.profile.base import SharedPass
from layerwright.tasks.profile.profilers.block_influence import BlockInfluence
from layerwright.tasks.profile.profilers.laziness import Laziness

def private_bytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

folder, work, bound = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
rows = torch.arange(4 * 64).view(4, 64) % 251
before, seen = private_bytes(), []
with load_streamed(folder, resident_bytes=bound or None) as streamed:
    shared = SharedPass([Laziness(sinks=1, window=16), BlockInfluence()], streamed.model, rows)
    keep = streamed.keep_states(work)
    shared.run(keep, work / "blocks" if bound else None, lambda _: seen.append(private_bytes()))
print(max(seen) - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="no /proc to read it from")
def test_a_pass_takes_the_bound_and_not_the_model(tmp_path: Path) -> None:
    model = tiny_llama(
        hidden_size=512,
        intermediate_size=2048,
        num_hidden_layers=10,
        num_attention_heads=8,
        num_key_value_heads=8,
        head_dim=64,
        initializer_range=0.02,
    )
    model.save_pretrained(tmp_path / "model")
    weights = sum(p.numel() * 4 for p in model.parameters())

    def peak(bound: int) -> float:
        arguments = [str(tmp_path / "model"), str(tmp_path / f"work-{bound}"), str(bound)]
        done = subprocess.run(
            [sys.executable, "-c", PASS, *arguments],
            cwd=ROOT, env=os.environ | ONE_THREAD, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return int(done.stdout) / weights

    assert peak(weights // 4) < 0.5
    assert peak(0) > 0.95
