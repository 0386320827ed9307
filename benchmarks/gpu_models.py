"""Whole models on a GPU: an 8 B shape with random weights in bf16, the base and its hybrids.

For each context length: the time of one prompt's prefill, and decoding at batch 1 and at the
largest batch that fits, by the recorded step (FixedDecoder), with its peak memory. Caches for
decoding are filled with random numbers: what they hold does not change what is done.
"""

import gc
import statistics
from collections.abc import Iterator
from typing import Any

import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from benchmarks.gpu_timing import seconds
from layerwright.tasks.hybrid.cache import HybridCache
from layerwright.tasks.hybrid.families import from_base_config
from layerwright.tasks.hybrid.modeling import HybridForCausalLM

STREAMING = {"kind": "streaming", "sinks": 4, "window": 1020}
LIGER = {"kind": "gated_recurrence", "gate": "gla", "window": 64, "sinks": 0}
LIGER |= {"alpha": 0.5, "beta": 0.5, "decay_bias": False}
# arm: the mixer, and every how many layers
ARMS: dict[str, tuple[dict, int]] = {
    "base": ({"kind": "full"}, 1),
    "half streaming": (STREAMING, 2),
    "all streaming": (STREAMING, 1),
    "half Liger": (LIGER, 2),
    "all Liger": (LIGER, 1),
}
STEPS, PREFILL_REPEATS, MOST_ROWS = 32, 3, 256
HEADER = (
    "\n| context | arm | prefill, ms | batch | decode, tokens/s | times base | peak, GB |\n"
    "|--:|---|--:|--:|--:|--:|--:|"
)


def eight_billion() -> LlamaConfig:
    """The shape of Llama-3-8B, for contexts of 128K."""
    return LlamaConfig(
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=2**17 + STEPS + 1,
    )


def random_model(config: LlamaConfig, device: str) -> HybridForCausalLM:
    """Full layers, normal weights (0, 0.02) in bf16, made on the device."""
    with torch.device("meta"):
        model = HybridForCausalLM(from_base_config(config)).bfloat16()
    model.to_empty(device=device)
    model.model.rotary_emb = LlamaRotaryEmbedding(config).to(device)
    numbers = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.02, generator=numbers)
    return model.eval()


def convert(model: HybridForCausalLM, mixer: dict, every: int) -> None:
    """Gives every ``every``-th layer the mixer, full attention to the others; weights stay."""
    for layer in range(len(model.model.layers)):
        chosen = mixer if layer % every == 0 else {"kind": "full"}
        model.set_layer_spec(layer, {"mixer": chosen})


@torch.no_grad()
def filled_cache(model: HybridForCausalLM, rows: int, tokens: int) -> HybridCache:
    """A cache as if `rows` prompts of `tokens` had been read."""
    cache, config = HybridCache(model.config), model.config
    weight = model.model.embed_tokens.weight
    shape = rows, config.num_key_value_heads, tokens, config.head_dim
    layers: list[Any] = cache.layers  # each mixer has a cache layer of its own class
    for layer, spec in zip(layers, cache.layer_specs, strict=True):
        kept = tokens
        if spec["mixer"]["kind"] != "full":
            kept = min(tokens, spec["mixer"]["sinks"] + spec["mixer"]["window"] - 1)
        keys = torch.randn(*shape[:2], kept, shape[3], dtype=weight.dtype, device=weight.device)
        layer.update(keys, keys)
        if spec["mixer"]["kind"] != "full":
            layer.cumulative_length = tokens
        if spec["mixer"]["kind"] == "gated_recurrence":
            layer.state = torch.randn(*shape[:2], shape[3], shape[3], device=weight.device)
    cache.seen_tokens = tokens
    return cache


@torch.no_grad()
def prefill_seconds(model: HybridForCausalLM, tokens: int) -> float | None:
    """Median over some prompts of one row; None where it does not fit."""
    ids = torch.arange(tokens, device="cuda")[None] % model.config.vocab_size

    def read() -> None:
        model(ids, use_cache=True, logits_to_keep=1)

    try:
        read()
        return statistics.median(seconds(read) for _ in range(PREFILL_REPEATS))
    except torch.OutOfMemoryError:
        return None


@torch.no_grad()
def decode_rate(model: HybridForCausalLM, rows: int, tokens: int) -> tuple[float, float] | None:
    """Tokens a second over all rows, and the peak in bytes; None where it does not fit."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    try:
        decoder = model.fixed_decoder(filled_cache(model, rows, tokens), 2 * STEPS)
        ids = torch.zeros(rows, 1, dtype=torch.int64, device="cuda")

        def steps() -> None:
            for _ in range(STEPS):
                decoder.step(ids)

        steps()  # records
        return rows * STEPS / seconds(steps), torch.cuda.max_memory_allocated()
    except torch.OutOfMemoryError:
        return None


def largest(model: HybridForCausalLM, tokens: int) -> tuple[int, float, float] | None:
    """Rows, tokens a second and peak of the largest power of two of rows that fits."""
    tried = (MOST_ROWS >> halved for halved in range(MOST_ROWS.bit_length() - 1))
    found = ((rows, decode_rate(model, rows, tokens)) for rows in tried)
    return next(((rows, *rate) for rows, rate in found if rate), None)


def table(quick: bool) -> Iterator[str]:
    """The lines of the table, as they are measured."""
    yield HEADER
    model = random_model(eight_billion(), "cuda")
    for tokens in (4096,) if quick else (4096, 16384, 65536, 131072):
        base: dict[str, float] = {}
        for name, (mixer, every) in ARMS.items():
            convert(model, mixer, every)
            prefill = prefill_seconds(model, tokens)
            shown = "does not fit" if prefill is None else f"{prefill * 1e3:,.0f}"
            one = decode_rate(model, 1, tokens)
            for label, found in (("one", one and (1, *one)), ("most", largest(model, tokens))):
                if found is None:
                    continue
                rows, rate, peak = found
                base.setdefault(label, rate)
                yield (
                    f"| {tokens} | {name} | {shown} | {rows} | {rate:,.0f} | "
                    f"{rate / base[label]:.2f} | {peak / 1e9:.1f} |"
                )
