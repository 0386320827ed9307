"""Measure prefill selection on a real prompt: its memory, and its text.

    python -m benchmarks.prefill_selection [--model FOLDER] [--text FILE] [--tokens 6000]
        [--full-layers 15] [--sinks 4] [--window 252] [--new-tokens 40]

Every layer competes. Bytes are those of the cache's own tensors, read after each layer of the
prompt; keys and values of the layer in progress come on top: one full layer more.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import torch

from benchmarks.profile_pass import fetched_model
from layerwright.tasks.hybrid.cache import HybridCache, predicted_kv_bytes
from layerwright.tasks.hybrid.configuration import FULL_LAYER
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.models.loading import load_base, load_tokenizer
from layerwright.tasks.strategies.keep import Keep
from layerwright.tasks.strategies.prefill_selection import PrefillSelection
from layerwright.tasks.strategies.streaming import Streaming


@torch.inference_mode()
def measure(model: HybridForCausalLM, ids: torch.Tensor, new_tokens: int) -> dict[str, Any]:
    """Greedy text of a model whose layers all compete, twice, and what the cache held."""
    held: list[int] = []
    arms, seconds = [], []
    cache = HybridCache(model.config)
    hooks = [
        layer.register_forward_hook(lambda *_: held.append(cache.nbytes()))
        for layer in model.model.layers
    ]
    for arm in ("measured", "static"):
        if arm == "static":
            for hook in hooks:
                hook.remove()
            cache = HybridCache(model.config, selection=cache.selection)
        started = time.perf_counter()
        arms.append(
            model.generate(  # type: ignore[misc]
                ids,
                past_key_values=cache,
                max_new_tokens=new_tokens,
                min_new_tokens=new_tokens,
                do_sample=False,
            )[0, ids.shape[1] :]
        )
        seconds.append(round(time.perf_counter() - started, 1))
    layers = model.config.num_hidden_layers
    return {
        "peak_bytes": max(held[:layers]),
        "bytes_after_the_prompt": held[layers - 1],
        "predicted_bytes_after_the_prompt": predicted_kv_bytes(
            model.config, ids.shape[1], 1, model.dtype.itemsize
        ),
        "trimmed_layers": cache.selection[0],
        "same_text_as_static": arms[0].equal(arms[1]),
        "text": arms[0].tolist(),
        "seconds": dict(zip(("measured", "static"), seconds, strict=True)),
    }


def bounds(model: HybridForCausalLM, strategy: PrefillSelection, tokens: int) -> dict[str, int]:
    """Bytes of the base's cache, and the bound while a prompt is read: P + 1 full, and windows."""
    sizes = {"element_bytes": model.dtype.itemsize}
    full = Keep().kv_bytes(model.config, tokens, **sizes)
    streaming = Streaming(sinks=strategy.sinks, window=strategy.window)
    window = streaming.kv_bytes(model.config, tokens, **sizes)
    layers, kept = model.config.num_hidden_layers, strategy.full_layers or 0
    return {
        "all_layers_full_bytes": layers * full,
        "bound_bytes": (kept + 1) * full + (layers - kept) * window,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="a checkpoint folder; fetched if not given")
    parser.add_argument("--text", type=Path, help="by default Python's own language reference")
    parser.add_argument("--tokens", type=int, default=6000)
    parser.add_argument("--full-layers", type=int, default=15)
    parser.add_argument("--sinks", type=int, default=4)
    parser.add_argument("--window", type=int, default=252)
    parser.add_argument("--new-tokens", type=int, default=40)
    options = parser.parse_args()
    folder = options.model or fetched_model()
    text = options.text.read_text() if options.text else "\n".join(topics.values())
    tokenizer, model = load_tokenizer(folder), load_base(folder)
    ids = tokenizer(text, return_tensors="pt").input_ids[:, : options.tokens]
    strategy = PrefillSelection(
        full_layers=options.full_layers, sinks=options.sinks, window=options.window
    )
    result: dict[str, object] = {"tokens": ids.shape[1], "dtype": str(model.dtype)}
    result |= bounds(model, strategy, ids.shape[1])
    for layer in range(model.config.num_hidden_layers):
        model.set_layer_spec(layer, strategy.layer_spec(FULL_LAYER))
    measured = measure(model, ids, options.new_tokens)
    result |= measured | {"text": tokenizer.decode(measured["text"])}
    result["machine"] = f"{platform.machine()}, {torch.get_num_threads()} threads"
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
