"""Bytes that the cache really holds after a context of a given length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from tasks.evaluate.arms import Arms
from tasks.evaluate.base import Figure, Metric, measured
from tasks.hybrid.cache import HybridCache
from tasks.hybrid.mixers.full import FullAttention
from tasks.hybrid.modeling import HybridForCausalLM
from tasks.measure.speed import prefill

Length = Annotated[int, Field(gt=0)]


class KVCache(Metric):
    """``kv_bytes.<n>``: bytes of the cache's tensors after n tokens, batch 1, in the model's dtype.

    Counted on the cache itself, never computed from a formula. Up to ``prefill_tokens`` the context
    is a real prefill; a longer one is n tokens of zeros in each layer's mixer by itself, without a
    forward pass of the model.
    """

    name: ClassVar[str] = "kv_cache"

    tokens: Annotated[tuple[Length, ...], Field(min_length=1)] = (1024, 8192)
    prefill_tokens: Annotated[int, Field(ge=0)] = 1024

    def names(self) -> tuple[str, ...]:
        return tuple(f"kv_bytes.{tokens}" for tokens in self.tokens)

    def estimate_tokens(self) -> int:
        return sum(tokens for tokens in self.tokens if tokens <= self.prefill_tokens)

    def measure(self, arms: Arms) -> Iterator[Figure]:
        for tokens in self.tokens:
            real = tokens <= self.prefill_tokens
            count = partial(_count, real=real)
            for arm in arms.names:
                [held_bytes] = arms.remembered(
                    arm, "kv-cache", [tokens, real], [tokens], count, what=f"{arm}: KV cache"
                )
                yield measured(
                    f"kv_bytes.{tokens}",
                    arm,
                    held_bytes,
                    unit="bytes",
                    higher_is_better=False,
                    count=1,
                    detail="counted on the cache after "
                    + ("a prefill" if real else "as many tokens of zeros in each layer"),
                )


def _count(model: HybridForCausalLM, contexts: Iterable[int], real: bool) -> Iterator[int]:
    for tokens in contexts:
        cache = prefill(model, tokens)[0] if real else zero_filled_cache(model, tokens)
        yield cache.nbytes()


@torch.inference_mode()
def zero_filled_cache(model: HybridForCausalLM, tokens: int) -> HybridCache:
    """The cache after ``tokens`` tokens of zeros were given to each layer's mixer.

    Full attention, whose time grows with the square of the tokens, is given its keys and values.
    """
    config = model.config
    cache = HybridCache(config)
    shape = (1, config.num_key_value_heads, tokens, config.head_dim)
    zeros = torch.zeros(shape, dtype=model.dtype, device=model.device)
    hidden = torch.zeros((1, tokens, config.hidden_size), dtype=model.dtype, device=model.device)
    placement = model.model.place(hidden)
    for layer, block in enumerate(model.model.layers):
        if isinstance(block.self_attn, FullAttention):
            cache.update(zeros, zeros, layer)
        elif block.self_attn is not None:
            block.self_attn(hidden, placement, cache)
    return cache
