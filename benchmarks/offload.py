"""Compare weights in memory, our offload, and accelerate's offload under the same memory bound.

    python -m benchmarks.offload [--model FOLDER] [--memory 300MB] [--new-tokens 12] [--threads 1]

Of every arm: seconds to the first token, tokens per second, seconds of one pass of 8 rows that all
go through a layer before the next, and the most bytes of weights held while a row passes. Arms
marked "cold" drop the weights from the page cache at every layer, so that each read comes from the
disk. Arms are interleaved; medians with the range. All arms must write the same tokens.
"""

import json
import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import torch
import typer

from benchmarks.common import fetched_model, machine, seconds
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.models.loading import load_tokenizer
from layerwright.tasks.models.skeleton import read_config
from layerwright.tasks.offload.generation import size_in_bytes
from layerwright.tasks.offload.offload import load_streamed
from layerwright.tasks.passes.stream import Stream
from layerwright.tasks.timing.speed import Timing, interleaved

PROMPT = "The harbour master counted the ships that had come in since the storm,"
ROWS, ROW_TOKENS = 8, 128


def accelerated(folder: Path, bound: int, offload: Path) -> HybridForCausalLM:
    """The same model under accelerate's disk offload."""
    model = HybridForCausalLM.from_pretrained(
        folder,
        config=read_config(folder),
        device_map="auto",
        max_memory={"cpu": bound},
        offload_folder=offload,
    )
    return model.eval()


def peak_weight_bytes(model: HybridForCausalLM, ids: torch.Tensor) -> int:
    """Most bytes of weights in place at any module's turn."""
    peak = 0

    def count(*_: object) -> None:
        nonlocal peak
        held = {
            p.untyped_storage().data_ptr(): p.untyped_storage().nbytes()
            for p in model.parameters()
            if not p.is_meta
        }
        peak = max(peak, sum(held.values()))

    hooks = [m.register_forward_hook(count) for m in model.modules() if not list(m.children())]
    with torch.inference_mode():
        model(ids)
    for hook in hooks:
        hook.remove()
    return peak


def forget(folder: Path) -> None:
    """Asks the system to drop the weights from its page cache."""
    for file in folder.glob("*.safetensors"):
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def measure(folder: Path, bound: int, new_tokens: int, repeats: int) -> dict[str, object]:
    ids = torch.tensor([load_tokenizer(folder)(PROMPT).input_ids])
    rows = torch.randint(0, 1000, (ROWS, ROW_TOKENS))
    written: dict[str, list[int]] = {}
    models: dict[str, HybridForCausalLM] = {}

    def decode(name: str, tokens: int) -> Callable[[], None]:
        def run() -> None:
            row = models[name].generate(  # type: ignore[misc]
                ids, min_new_tokens=tokens, max_new_tokens=tokens, do_sample=False
            )
            written[name] = row[0].tolist()

        return run

    def block_major(name: str) -> Callable[[], None]:
        @torch.inference_mode()
        def run() -> None:
            Stream(models[name], rows, at_once=1).outputs(len(models[name].model.layers))

        return run

    with ExitStack() as stack:

        def ours(resident_bytes: int | None = None) -> HybridForCausalLM:
            streamed = load_streamed(folder, resident_bytes=resident_bytes)
            return stack.enter_context(streamed).model

        models["resident"] = ours()
        for cold in ("", ", cold disk"):
            models["ours" + cold] = ours(resident_bytes=bound)
            offload = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            models["accelerate" + cold] = accelerated(folder, bound, offload)
            if cold:
                for name, model in models.items():
                    for layer in model.model.layers if name.endswith(cold) else ():
                        layer.register_forward_hook(lambda *_: forget(folder))

        def timed(make: Callable[[str], Callable[[], None]]) -> dict[str, Timing]:
            return interleaved({name: make(name) for name in models}, repeats=repeats)

        first = timed(lambda name: decode(name, 1))
        whole = timed(lambda name: decode(name, new_tokens))
        if len({tuple(tokens) for tokens in written.values()}) != 1:
            raise SystemExit(f"the arms wrote different tokens: {written}")
        passes = timed(block_major)
        return {
            name: {
                "first_token_s": seconds(first[name]),
                "seconds": seconds(whole[name]),
                "decode_tokens_per_s": round(
                    (new_tokens - 1) / (whole[name].median_ms - first[name].median_ms) * 1e3, 2
                ),
                "pass_of_8_rows_s": seconds(passes[name]),
                "peak_weight_bytes": peak_weight_bytes(model, ids),
            }
            for name, model in models.items()
        }


def main(
    model: Path | None = None,
    memory: str = "300MB",
    new_tokens: int = 12,
    repeats: int = 3,
    threads: int = torch.get_num_threads(),
) -> None:
    """Compare three ways under one memory bound; MODEL is fetched if not given."""
    torch.set_num_threads(threads)
    result = measure(model or fetched_model(), size_in_bytes(memory), new_tokens, repeats)
    print(json.dumps(result | {"machine": machine()}, indent=1))


if __name__ == "__main__":
    typer.run(main)
