"""A pass over a model under a limit of the system's on private memory that the model exceeds."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import tiny_llama

ROOT = Path(__file__).resolve().parents[2]
ROOM = 0.6  # of the weights' bytes
PASS = """
import resource, sys
from pathlib import Path
import torch
from tasks.measure.offload import load_streamed
from tasks.profile.base import SharedPass
from tasks.profile.block_influence import BlockInfluence
from tasks.profile.laziness import Laziness

folder, work = map(Path, sys.argv[1:3])
bound, weights = map(int, sys.argv[3:])
torch.set_num_threads(1)
status = Path("/proc/self/status").read_text().splitlines()
taken = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData"))
limit = taken + int({room} * weights)
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
rows = torch.arange(4 * 64).view(4, 64) % 251
with load_streamed(folder, resident_bytes=bound or None) as streamed:
    profilers = [Laziness(sinks=1, window=16), BlockInfluence()]
    shared = SharedPass(profilers, streamed.model, rows)
    found = shared.run(streamed.keep_states(work), work / "blocks")
print(sum(score for one in found for scores in one.scores for score in scores.values()))
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_DATA"), reason="this system has no such limit")
def test_a_pass_fits_where_the_model_does_not(tmp_path: Path) -> None:
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
    script = PASS.format(room=ROOM)

    def run(bound: int) -> subprocess.CompletedProcess[str]:
        arguments = [str(tmp_path / "model"), str(tmp_path / f"work-{bound}"), str(bound)]
        return subprocess.run(
            [sys.executable, "-c", script, *arguments, str(weights)],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip

    bounded = run(weights // 4)
    assert bounded.returncode == 0, bounded.stderr
    assert float(bounded.stdout) > 0
    whole = run(0)
    assert whole.returncode != 0
    assert "memory" in whole.stderr
