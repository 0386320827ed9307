"""A converted checkpoint under Transformers' quantization_config: the same model, rounded weights.

Whether int8 is good enough is a question to a real model and its data. Here: what is computed is
the hybrid with its weights as they were rounded, along every path. torchao comes from the package
index into a folder of its own: where it is installed, Transformers imports it for every model.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from export.checkpoints import FULL, LINEAR, SINKS, write_hybrid_checkpoint
from tolerance import SAME_MODEL

LIMIT = SAME_MODEL[torch.float32]
ROUNDING = 0.01  # relative RMS of int8 weights with one scale per row


@pytest.mark.real
def test_int8_is_the_model_with_rounded_weights(tmp_path):
    packages, hybrid, saved = (tmp_path / name for name in ("packages", "hybrid", "int8"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    subprocess.run([*pip, str(packages), "torchao==0.18.0"], check=True)
    write_hybrid_checkpoint(hybrid, [SINKS, FULL, LINEAR, SINKS])
    script = Path(__file__).with_name("quantised_process.py")
    process = subprocess.run(
        [sys.executable, str(script), str(hybrid), str(saved)],
        env=os.environ | {"PYTHONPATH": str(packages), "HF_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout.splitlines()[-1])
    # three layers with attention and feed-forward, and the map of the fourth
    assert len(found["weights"]) == 3 * 7 + 1
    assert all(0 < error < ROUNDING for error in found["weights"].values())
    assert found["to_rounded"] <= LIMIT < found["to_exact"]
    assert found["stepwise"] <= LIMIT
    assert found["cached_is_uncached"]
    assert found["again"] <= LIMIT
    before, after = ((f / "model.safetensors").stat().st_size for f in (hybrid, saved))
    assert after < 0.7 * before
