"""Every kernel compiles for an H100 or H200 at an 8 B model's head size; no device is needed.

The interpreter proves the numbers; this proves that the compiler takes the kernels as their callers
launch them, and that their tiles fit a multiprocessor's shared memory.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
ROOT = Path(__file__).parents[2]
SHARED_BYTES = 232_448  # of one program, on compute capability 9.0

# Runs the operators with launching replaced by compiling, so their results mean nothing.
PROGRAM = """
import json
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.runtime.autotuner import Autotuner
from triton.runtime.jit import JITFunction

class Driver:
    def get_current_target(self): return GPUTarget("cuda", 90, 32)
    def get_current_device(self): return 0
    def get_current_stream(self, device=None): return 0
    def get_active_torch_device(self): return torch.device("cpu")
    def get_benchmarker(self): return None

triton.runtime.driver.set_active(Driver())
launch, found = JITFunction.run, {}

def compile_only(self, *args, grid, warmup, **options):
    kernel = launch(self, *args, grid=grid, warmup=True, **options)
    name = f"{self.fn.__module__}.{self.fn.__name__}"
    found[name] = max(kernel.metadata.shared, found.get(name, 0))

def first_setting(self, *args, **options):
    return self.fn.run(*args, **options, **self.configs[0].all_kwargs())

JITFunction.run, Autotuner.run = compile_only, first_setting

from layerwright.kernels.covered_mass.fused import covered_mass_fused
from layerwright.kernels.gated_recurrence.fused import gated_recurrence_fused
from layerwright.kernels.gated_recurrence.triton_step import gated_recurrence_step_fused
from layerwright.kernels.liger_decode import LigerMix, NewToken
from layerwright.kernels.liger_decode.fused import liger_decode_fused
from layerwright.kernels.ring import Ring
from layerwright.kernels.streaming_attention.fused import streaming_attention_fused

def draw(heads, tokens, dtype=torch.bfloat16, size=128):
    return torch.randn(2, heads, tokens, size, dtype=dtype, requires_grad=True)

at = torch.arange(300)[None]
q, k, v = draw(8, 300), draw(2, 300), draw(2, 300)
streaming_attention_fused(q, k, v, at, at, 4, 60).sum().backward()
for dtype, size in ((torch.bfloat16, 128), (torch.float32, 256)):  # and the largest rows there are
    with torch.no_grad():
        q, k, v = (draw(heads, 300, dtype, size) for heads in (8, 2, 2))
        streaming_attention_fused(q[:, :, :1], k, v, at[:, -1:], at, 4, 60)
        covered_mass_fused(q[:, :, -32:], k, (32, 64), 4, at[:, -32:], at)
        held = (x[:, :, :64].contiguous() for x in (k, v))
        ring, state = Ring(*held, at[:, :64].contiguous(), 0), torch.zeros(2, 2, size, size)
        token = NewToken(*(x[:, :, :1] for x in (q, k, v, q, k)), at[:, :1])
        mix = LigerMix("gla", state[0, :, 0], torch.zeros(2, 8), 64)
        liger_decode_fused(token, ring, state, mix)
        gated_recurrence_step_fused(*token[:3], token[1], state, "key")
q, k, v, g = draw(8, 300, torch.float32), *(draw(2, 300, torch.float32) for _ in range(3))
state = torch.zeros(2, 2, 128, 128, requires_grad=True)
for decayed in ("key", "value"):
    out, last = gated_recurrence_fused(q, k, v, g, state, decayed)
    (out.sum() + last.sum()).backward()
print(json.dumps(found))
"""


def test_every_kernel_compiles_and_fits(pytestconfig):
    """A kernel that has not changed since the last time is not compiled again."""
    compiled = pytestconfig.cache.mkdir("triton")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TRITON_CACHE_DIR": str(compiled)}
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    written = {
        f"layerwright.{'.'.join(path.relative_to(ROOT).with_suffix('').parts)}.{name}"
        for path in (ROOT / "kernels").rglob("*.py")
        for line in path.read_text().splitlines()
        if line.startswith("def _") and (name := line[4:].split("(")[0]).endswith("_kernel")
    }
    assert set(found) == written
    assert max(found.values()) <= SHARED_BYTES
