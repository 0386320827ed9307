"""Decoding with the weights in memory against half of the layers read from disk, token by token.

    python -m benchmarks.offload [--model FOLDER] [--new-tokens 16] [--repeats 3] [--threads 2]

Arms: all resident; half of the layers' number resident, with prefetch and without; and the last two
again where every read has to come from the disk (the page cache gives the file up after each read).
Arms are interleaved; medians with the range. All arms must write the same tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import torch

from benchmarks.profile_pass import fetched_model
from layerwright.tasks.models.loading import load_tokenizer
from layerwright.tasks.offload.offload import StreamedModel, load_streamed
from layerwright.tasks.timing.timer import interleaved

PROMPT = "The harbour master counted the ships that had come in since the storm,"


def forget(folder: Path) -> None:
    """Asks the system to drop the weights from its page cache."""
    for file in folder.glob("*.safetensors"):
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def forgetful(streamed: StreamedModel, folder: Path) -> None:
    """Makes the page cache forget the weights after each layer's turn."""
    for layer in streamed.residency.streamed:
        block = streamed.model.model.layers[layer]
        block.register_forward_hook(lambda *_: forget(folder))


def measure(folder: Path, new_tokens: int, repeats: int) -> dict[str, object]:
    ids = torch.tensor([load_tokenizer(folder)(PROMPT).input_ids])
    layers = len(load_streamed(folder).model.model.layers)
    written: dict[str, list[int]] = {}

    def arm(name: str, streamed: StreamedModel) -> Callable[[], None]:
        def decode() -> None:
            row = streamed.model.generate(
                ids, min_new_tokens=new_tokens, max_new_tokens=new_tokens, do_sample=False
            )
            written[name] = row[0].tolist()

        return decode

    with ExitStack() as stack:
        models: dict[str, StreamedModel] = {}
        for name, half, prefetch in (
            ("resident", None, True),
            ("half, prefetch", layers // 2, True),
            ("half, no prefetch", layers // 2, False),
            ("half, cold disk, prefetch", layers // 2, True),
            ("half, cold disk, no prefetch", layers // 2, False),
        ):
            loaded = load_streamed(folder, resident_layers=half, prefetch=prefetch)
            models[name] = stack.enter_context(loaded)
            if "cold" in name:
                forgetful(models[name], folder)
        timings = interleaved({n: arm(n, m) for n, m in models.items()}, repeats=repeats)
    if len({tuple(tokens) for tokens in written.values()}) != 1:
        raise SystemExit(f"the arms wrote different tokens: {written}")
    return {
        name: {
            "tokens_per_s": [
                round(new_tokens / t * 1e3, 2)
                for t in (timing.median_ms, timing.high_ms, timing.low_ms)
            ],
            "peak_weight_bytes": models[name].peak_resident_bytes,
            "streamed_layers": len(models[name].residency.streamed),
        }
        for name, timing in timings.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="a checkpoint folder; fetched if not given")
    parser.add_argument("--new-tokens", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = options.model or fetched_model()
    result = measure(folder, options.new_tokens, options.repeats)
    result["machine"] = f"{platform.machine()}, {torch.get_num_threads()} threads"
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
