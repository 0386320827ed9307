"""How long models take to read a prompt, and to write each token behind it.

Shapes: B rows, N tokens of context, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tasks.hybrid.cache import HybridCache
from tasks.hybrid.modeling import HybridForCausalLM
from tasks.measure.timer import in_turn, now


@dataclass(frozen=True)
class Speed:
    """Samples of one model, one a round, in seconds: the whole prefill, and each decoded token."""

    prefill_seconds: tuple[float, ...]
    decode_seconds_per_token: tuple[float, ...]


def interleaved_speeds(
    models: Mapping[str, HybridForCausalLM],
    context_tokens: int,
    *,
    decode_tokens: int,
    repeats: int,
    batch: int = 1,
    track: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> dict[str, Speed]:
    """Prefill and decode of every model, in turns, in ``repeats`` rounds behind an uncounted one.

    A slow minute of the machine hits all models alike. Each sample has a prefill and a cache of its
    own, so that none starts with a longer context.

    Args:
        context_tokens: N, which are read at once.
        decode_tokens: greedy steps behind them, one token for each of B rows.
        track: shows the rounds as they pass.

    Returns:
        name -> its samples, in the order of the rounds.
    """
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    for turn in track(range(repeats + 1)):
        for name in in_turn(list(models), turn):
            taken[name].append(_read_and_write(models[name], context_tokens, decode_tokens, batch))
    return {
        name: Speed(
            tuple(read for read, _ in seconds[1:]),
            tuple(written / decode_tokens for _, written in seconds[1:]),
        )
        for name, seconds in taken.items()
    }


@torch.inference_mode()
def prefill(model: HybridForCausalLM, tokens: int, batch: int = 1) -> tuple[HybridCache, Tensor]:
    """The cache and the last logits (B, 1, V) after ``tokens`` tokens, whichever they are."""
    ids = torch.arange(tokens, device=model.device).expand(batch, tokens) % model.config.vocab_size
    cache = HybridCache(model.config)
    logits = model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
    return cache, logits


@torch.inference_mode()
def _read_and_write(
    model: HybridForCausalLM, context_tokens: int, decode_tokens: int, batch: int
) -> tuple[float, float]:
    """Seconds of one prefill, and of all greedy steps behind it."""
    device = str(model.device)
    started = now(device)
    cache, logits = prefill(model, context_tokens, batch)
    read = now(device)
    for _ in range(decode_tokens):
        token = logits[:, -1].argmax(-1, keepdim=True)
        logits = model(token, past_key_values=cache, use_cache=True).logits
    return read - started, now(device) - read
