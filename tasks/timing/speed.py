"""Time models, or other functions, in interleaved rounds, and measure their peak memory.

Shapes: B rows, N tokens of context, V vocabulary.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from layerwright.tasks.hybrid.cache import HybridCache
from layerwright.tasks.hybrid.modeling import HybridForCausalLM

BLOCK = "[memory]"  # the profiler's name of an allocation or a free


@dataclass
class Peak:
    """Peak memory; ``nbytes`` is set when the block ends."""

    nbytes: int = 0


@contextmanager
def peak_memory(device: str) -> Iterator[Peak]:
    """Measures the block's peak memory on ``device``. On a CPU this slows the block down."""
    peak = Peak()
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield peak
        peak.nbytes = torch.cuda.max_memory_allocated(device) - before
        return
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # hides the profiler's messages on stderr
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        yield peak
    events = recorded.profiler.kineto_results.events()
    blocks = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == BLOCK)
    peak.nbytes = max(accumulate(nbytes for _, nbytes in blocks), default=0)


def weight_bytes(model: nn.Module) -> int | None:
    """Bytes of parameters and buffers, shared ones once; None if layers are offloaded."""
    tensors = [*model.parameters(), *model.buffers()]
    if any(tensor.is_meta for tensor in tensors):
        return None
    storages = [tensor.untyped_storage() for tensor in tensors]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


SHORT = 64  # tokens of the first pass, which allocates the memory that a model keeps


@dataclass(frozen=True)
class Timing:
    """Samples of one arm, in milliseconds, in the order they were taken."""

    samples_ms: tuple[float, ...]

    @property
    def median_ms(self) -> float:
        return statistics.median(self.samples_ms)

    @property
    def low_ms(self) -> float:
        return min(self.samples_ms)

    @property
    def high_ms(self) -> float:
        return max(self.samples_ms)


def rotated(names: Sequence[str], turn: int) -> list[str]:
    """The names in the order of round ``turn``, rotated by one place each round.

    This way no arm always runs after the same other arm.
    """
    first = turn % len(names)
    return [*names[first:], *names[:first]]


def now(device: str) -> float:
    """Clock time in seconds; on ``cuda`` it first waits for the device to finish."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter()


def interleaved(
    arms: Mapping[str, Callable[[], object]],
    *,
    repeats: int = 5,
    warmup: int = 1,
    device: str = "cpu",
) -> dict[str, Timing]:
    """Times every arm once per round, in ``warmup`` unmeasured and ``repeats`` measured rounds.

    Raises:
        ValueError: ``repeats`` is less than 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    samples: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(warmup + repeats):
        for name in rotated(list(arms), turn):
            started = now(device)
            arms[name]()
            if turn >= warmup:
                samples[name].append((now(device) - started) * 1e3)
    return {name: Timing(tuple(values)) for name, values in samples.items()}


@dataclass(frozen=True)
class Speed:
    """Samples of one model in seconds, one per round.

    Attributes:
        prefill_seconds: time to read the whole prompt.
        first_token_seconds: prefill and the choice of the first token.
        decode_seconds_per_token: time per token after the first.
        request_seconds: the whole request, from the prompt to the last token.
        peak_bytes: peak memory of a request beyond the weights, from the warm-up round.
    """

    prefill_seconds: tuple[float, ...]
    first_token_seconds: tuple[float, ...]
    decode_seconds_per_token: tuple[float, ...]
    request_seconds: tuple[float, ...]
    peak_bytes: int


class _Request(NamedTuple):
    """Seconds from the start to the end of prefill, to the first token and to the last token."""

    prefill: float
    first_token: float
    last_token: float


def interleaved_speeds(
    models: Mapping[str, HybridForCausalLM],
    context_tokens: int,
    *,
    decode_tokens: int,
    repeats: int,
    batch: int = 1,
    track: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> dict[str, Speed]:
    """Prefill and decode times of every model, in ``repeats`` rounds after one warm-up round.

    Each sample has its own prefill and cache, so that all start with the same context. The warm-up
    round measures memory.

    Args:
        context_tokens: N, the tokens of the prompt, read in one pass.
        decode_tokens: greedy steps after the first token, one token for each of B rows.
        track: wraps the iterator of rounds, to show progress.

    Returns:
        Model name -> its samples, in the order of the rounds.
    """
    rounds: dict[str, list[_Request]] = {name: [] for name in models}
    peaks: dict[str, int] = {}
    for turn in track(range(repeats + 1)):
        for name in rotated(list(models), turn):
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
            prefill_seconds=tuple(r.prefill for r in requests),
            first_token_seconds=tuple(r.first_token for r in requests),
            decode_seconds_per_token=tuple(
                (r.last_token - r.first_token) / decode_tokens for r in requests
            ),
            request_seconds=tuple(r.last_token for r in requests),
            peak_bytes=peaks[name],
        )
        for name, requests in rounds.items()
    }


@torch.inference_mode()
def prefill(model: HybridForCausalLM, tokens: int, batch: int = 1) -> tuple[HybridCache, Tensor]:
    """The cache and the last logits (B, 1, V) after a prompt of ``tokens`` arbitrary tokens."""
    ids = torch.arange(tokens, device=model.device).expand(batch, tokens) % model.config.vocab_size
    cache = HybridCache(model.config)
    logits = model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
    return cache, logits


@torch.inference_mode()
def _request(
    model: HybridForCausalLM, context_tokens: int, decode_tokens: int, batch: int
) -> _Request:
    device = str(model.device)
    started = now(device)
    cache, logits = prefill(model, context_tokens, batch)
    prefilled = now(device)
    token = logits[:, -1].argmax(-1, keepdim=True)
    first_token = now(device)
    for _ in range(decode_tokens):
        logits = model(token, past_key_values=cache, use_cache=True).logits
        token = logits[:, -1].argmax(-1, keepdim=True)
    return _Request(prefilled - started, first_token - started, now(device) - started)
