"""How long models take to read a prompt and to write behind it, and how much memory.

Shapes: B rows, N tokens of context, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from layerwright.tasks.hybrid.cache import HybridCache
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.timing.memory import peak_memory
from layerwright.tasks.timing.timer import in_turn, now

SHORT = 64  # tokens of a pass that takes what a model takes once and keeps


@dataclass(frozen=True)
class Speed:
    """Samples of one model, one a round, in seconds.

    Attributes:
        prefill_seconds: to read the whole prompt.
        first_token_seconds: to read it and choose a token.
        decode_seconds_per_token: each token behind the first.
        request_seconds: all of that, from the prompt to the last token.
        peak_bytes: what a request takes at its peak beyond the weights, from the uncounted round.
    """

    prefill_seconds: tuple[float, ...]
    first_token_seconds: tuple[float, ...]
    decode_seconds_per_token: tuple[float, ...]
    request_seconds: tuple[float, ...]
    peak_bytes: int


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
    own, so that none starts with a longer context. The uncounted round measures memory.

    Args:
        context_tokens: N, which are read at once.
        decode_tokens: greedy steps behind the first token, one token for each of B rows.
        track: shows the rounds as they pass.

    Returns:
        name -> its samples, in the order of the rounds.
    """
    rounds: dict[str, list[_Request]] = {name: [] for name in models}
    peaks: dict[str, int] = {}
    for turn in track(range(repeats + 1)):
        for name in in_turn(list(models), turn):
            model = models[name]
            if turn:
                rounds[name].append(_request(model, context_tokens, decode_tokens, batch))
                continue
            prefill(model, min(SHORT, context_tokens), batch)
            with peak_memory(str(model.device)) as peak:
                _request(model, context_tokens, decode_tokens, batch)
            peaks[name] = peak.nbytes
    return {
        name: Speed(
            prefill_seconds=tuple(one.read for one in taken),
            first_token_seconds=tuple(one.chosen for one in taken),
            decode_seconds_per_token=tuple(
                (one.finished - one.chosen) / decode_tokens for one in taken
            ),
            request_seconds=tuple(one.finished for one in taken),
            peak_bytes=peaks[name],
        )
        for name, taken in rounds.items()
    }


@torch.inference_mode()
def prefill(model: HybridForCausalLM, tokens: int, batch: int = 1) -> tuple[HybridCache, Tensor]:
    """The cache and the last logits (B, 1, V) after ``tokens`` tokens, whichever they are."""
    ids = torch.arange(tokens, device=model.device).expand(batch, tokens) % model.config.vocab_size
    cache = HybridCache(model.config)
    logits = model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
    return cache, logits


class _Request(NamedTuple):
    """Seconds after its start at which the prompt was read, a token chosen, the last one chosen."""

    read: float
    chosen: float
    finished: float


@torch.inference_mode()
def _request(
    model: HybridForCausalLM, context_tokens: int, decode_tokens: int, batch: int
) -> _Request:
    device = str(model.device)
    started = now(device)
    cache, logits = prefill(model, context_tokens, batch)
    read = now(device)
    token = logits[:, -1].argmax(-1, keepdim=True)
    chosen = now(device)
    for _ in range(decode_tokens):
        logits = model(token, past_key_values=cache, use_cache=True).logits
        token = logits[:, -1].argmax(-1, keepdim=True)
    return _Request(read - started, chosen - started, now(device) - started)
