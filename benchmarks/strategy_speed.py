"""Measure decode speed, prefill time and prefill memory of each strategy and of the base.

    python -m benchmarks.strategy_speed [--model FOLDER] [--tokens 1024 4096 8192] [--repeats 3]

Each strategy on every other layer and on all layers, all arms interleaved in one process: medians
with the range, and their ratios to the base. Maps are left at zero: their size is what costs time.
Prefill memory is the peak resident size of a process of its own for each length, less the size
before the prefill.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.common import fetched_model, machine, memory_bytes, spread
from layerwright.tasks.components import build
from layerwright.tasks.contracts.base import Spec
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.models.conversion import unfitted_copy
from layerwright.tasks.models.loading import load_base
from layerwright.tasks.strategies.base import Strategy
from layerwright.tasks.timing.speed import interleaved_speeds, prefill

STRATEGIES = {
    "keep": Spec(name="keep"),
    "streaming 4+252": Spec(name="streaming", sinks=4, window=252),
    "prefill_selection, half": Spec(name="prefill_selection", sinks=4, window=252),
    "local 256": Spec(name="local", spans=256),
    "local 256, corrected": Spec(name="local", spans=256, correction="block_mean"),
    "gla 64": Spec(name="gated_recurrence", gate="gla"),
    "gsa 64": Spec(name="gated_recurrence", gate="gsa"),
    "drop_attention": Spec(name="drop_attention"),
    "linear": Spec(name="linear"),
    "remove": Spec(name="remove"),
}
NEW_TOKENS = 16


def converted(base: HybridForCausalLM, spec: Spec, every: int) -> HybridForCausalLM:
    """The base with every ``every``-th layer converted; it shares the weights that both have."""
    strategy, specs = build(Strategy, spec), list(base.config.layer_specs or ())
    specs[::every] = [strategy.layer_spec(before) for before in specs[::every]]
    return unfitted_copy(base, specs)


def speeds(base: HybridForCausalLM, tokens: int, repeats: int, names: list[str]) -> dict:
    """Prefill and decode of every arm, in turns; figures and ratios to the base."""
    arms = {"keep": base}
    for name in names:
        arms[f"{name}; every other layer"] = converted(base, STRATEGIES[name], 2)
        arms[f"{name}; all layers"] = converted(base, STRATEGIES[name], 1)
    taken = interleaved_speeds(arms, tokens, decode_tokens=NEW_TOKENS, repeats=repeats)
    base_prefill = statistics.median(taken["keep"].prefill_seconds)
    base_decode = statistics.median(taken["keep"].decode_seconds_per_token)
    rows = {}
    for name, speed in taken.items():
        prefill_s, *prefill_range = spread(speed.prefill_seconds, 3)
        decode, *decode_range = spread(1 / s for s in speed.decode_seconds_per_token)
        decode_s = statistics.median(speed.decode_seconds_per_token)
        rows[name] = {
            "prefill_s": prefill_s,
            "prefill_range_s": prefill_range,
            "decode_tokens_per_s": decode,
            "decode_range": decode_range,
            "prefill_ratio": round(statistics.median(speed.prefill_seconds) / base_prefill, 3),
            "decode_ratio": round(base_decode / decode_s, 3),
        }
    return rows


def prefill_memory(folder: Path, name: str, tokens: int) -> int:
    """Bytes that a prefill adds at its peak, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.strategy_speed", "--model", str(folder)]
    command += ["--only-memory", name, "--tokens", str(tokens)]
    # freed blocks go back to the system at once: the peak is what was held, not what malloc kept
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "1048576"}
    done = subprocess.run(command, capture_output=True, check=True, env=environment)
    return int(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="a checkpoint folder; fetched if not given")
    parser.add_argument("--tokens", type=int, nargs="+", default=[1024, 4096, 8192])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--strategies", nargs="+", default=[n for n in STRATEGIES if n != "keep"])
    parser.add_argument("--memory-tokens", type=int, nargs="*", default=[2048, 4096, 8192])
    parser.add_argument("--only-memory", metavar="STRATEGY", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only_memory:
        model = converted(load_base(options.model), STRATEGIES[options.only_memory], 1)
        prefill(model, 64)  # what the first pass allocates once
        before = memory_bytes("VmHWM")
        prefill(model, options.tokens[0])
        print(memory_bytes("VmHWM") - before)
        return
    folder = options.model or fetched_model()
    base = load_base(folder)
    result: dict[str, object] = {
        "machine": machine(),
        "prefill_memory_bytes": {
            name: {str(n): prefill_memory(folder, name, n) for n in options.memory_tokens}
            for name in ["keep", *options.strategies]
        },
    }
    for tokens in options.tokens:
        result[str(tokens)] = speeds(base, tokens, options.repeats, options.strategies)
        print(json.dumps({str(tokens): result[str(tokens)]}), file=sys.stderr, flush=True)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
