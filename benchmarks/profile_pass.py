"""Time the profile pass and a plain forward on the same tokens; memory by token count.

    python -m benchmarks.profile_pass [--model FOLDER] [--rows 16] [--repeats 3]

The plain forward is Transformers' own model with its logits, row by row. Arms are interleaved;
medians with the range. Memory is the peak resident size of a process of its own for each size.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import torch
import typer
from transformers import AutoModelForCausalLM

from benchmarks.common import fetched_model, machine, memory_bytes, seconds
from layerwright.tasks.components import build
from layerwright.tasks.contracts.base import Spec
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.models.loading import load_base
from layerwright.tasks.passes.states import Spill
from layerwright.tasks.profile.base import Profiler, SharedPass
from layerwright.tasks.timing.speed import interleaved

ROW_TOKENS = 512
# all that share the pass; spans must be shorter than the rows
PROFILERS = (
    Spec(name="laziness", window=252),
    Spec(name="covered_span", spans=[32, 64, 128, 256]),
    *(Spec(name=n) for n in ("attention_span", "linearity", "block_influence", "angular_distance")),
)


def random_rows(rows: int, vocabulary: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, vocabulary, (rows, ROW_TOKENS), generator=generator)


def profile(model: HybridForCausalLM, rows: torch.Tensor) -> None:
    """What the profile step does, but for the profilers that run the model themselves."""
    shared = SharedPass([build(Profiler, spec) for spec in PROFILERS], model, rows)
    with tempfile.TemporaryDirectory() as folder:
        shared.run(Spill(Path(folder) / "rows"), Path(folder) / "blocks")


def time_arms(folder: Path, rows: int, repeats: int) -> dict[str, object]:
    plain, ours = AutoModelForCausalLM.from_pretrained(folder).eval(), load_base(folder)
    ids = random_rows(rows, plain.config.vocab_size)

    @torch.inference_mode()
    def forward() -> None:
        for row in ids:
            plain(row[None])

    arms = {"plain forward": forward, "profile pass": lambda: profile(ours, ids)}
    timings = interleaved(arms, repeats=repeats)
    ratio = timings["profile pass"].median_ms / timings["plain forward"].median_ms
    times = {name: seconds(timing) for name, timing in timings.items()}
    return {"tokens": ids.numel(), "ratio": round(ratio, 3), **times}


def peak_memory(folder: Path, rows: int) -> int:
    """Bytes of peak resident memory of a process that profiles ``rows`` rows."""
    command = [sys.executable, "-m", "benchmarks.profile_pass", "--model", str(folder)]
    done = subprocess.run([*command, "--only-memory", str(rows)], capture_output=True, check=True)
    return int(done.stdout.split()[-1])


def main(
    model: Path | None = None,
    rows: int = 16,
    repeats: int = 3,
    only_memory: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Time the profile pass and a plain forward; MODEL is fetched if not given."""
    folder = model or fetched_model()
    if only_memory:
        base = load_base(folder)
        profile(base, random_rows(only_memory, base.config.vocab_size))
        print(memory_bytes("VmHWM"))
        return
    result = time_arms(folder, rows, repeats)
    peaks = {str(n * ROW_TOKENS): peak_memory(folder, n) for n in (16, 128)}
    print(json.dumps(result | {"peak_memory_bytes": peaks, "machine": machine()}, indent=1))


if __name__ == "__main__":
    typer.run(main)
