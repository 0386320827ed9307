"""Bytes of the KV cache after a context of a given length, counted on the cache itself."""

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import product
from typing import Annotated

import torch
from pydantic import Field

from layerwright.tasks.contracts.workload import Workload
from layerwright.tasks.evaluate.arms import Arms
from layerwright.tasks.evaluate.base import Counts, Figure, Metric, measured, shown
from layerwright.tasks.hybrid.cache import HybridCache
from layerwright.tasks.hybrid.mixers.full import FullAttention
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.timing.speed import prefill


class KVCache(Metric):
    """Bytes of the cache's tensors after n tokens, in the model's dtype.

    ``kv_bytes.<n>`` for a single row and ``kv_bytes.<n>.b<k>`` for k rows. The bytes are counted on
    a cache, not computed from a formula. Up to ``prefill_tokens``, a prefill fills the cache. For a
    longer context, each layer's mixer gets n tokens of zeros, without a forward pass of the model.
    """

    name = "kv_cache"
    presentation = {"kv_bytes": shown("KV cache", "measured; lower is better", "by_length")}

    tokens: Counts = (1024, 8192)
    batches: Counts = (1,)
    prefill_tokens: Annotated[int, Field(ge=0)] = 1024

    def workloads(self) -> list[Workload]:
        pairs = product(self.tokens, self.batches)
        return [Workload(tokens, batch=batch) for tokens, batch in pairs]

    def names(self) -> tuple[str, ...]:
        return tuple(f"kv_bytes.{load}" for load in self.workloads())

    def estimate_tokens(self) -> int:
        sizes = [(load.prompt_tokens, load.batch) for load in self.workloads()]
        return sum(tokens * batch for tokens, batch in sizes if tokens <= self.prefill_tokens)

    def measure(self, arms: Arms) -> Iterator[Figure]:
        for load in self.workloads():
            with_prefill = load.prompt_tokens <= self.prefill_tokens
            filled = "a prefill" if with_prefill else "as many tokens of zeros in each layer"
            options, count = [load, with_prefill], partial(_count, with_prefill=with_prefill)
            for arm in arms.names:
                [cache_bytes] = arms.item_results(
                    arm, "kv-cache", options, [load], count, what=f"{arm}: KV cache"
                )
                detail = f"counted on the cache after {filled}"
                yield measured(
                    f"kv_bytes.{load}", arm, cache_bytes, "bytes", count=1, detail=detail
                )


def _count(
    model: HybridForCausalLM, loads: Iterable[Workload], with_prefill: bool
) -> Iterator[int]:
    for load in loads:
        size = (load.prompt_tokens, load.batch)
        cache = prefill(model, *size)[0] if with_prefill else zero_filled_cache(model, *size)
        yield cache.nbytes()


@torch.inference_mode()
def zero_filled_cache(model: HybridForCausalLM, tokens: int, batch: int = 1) -> HybridCache:
    """Return a cache after each layer's mixer has processed ``tokens`` tokens of zeros.

    For full attention, whose time is quadratic, keys and values are written to the cache directly.
    """
    config, cache = model.config, HybridCache(model.config)
    zeros = partial(torch.zeros, dtype=model.dtype, device=model.device)
    keys = zeros(batch, config.num_key_value_heads, tokens, config.head_dim)
    hidden = zeros(batch, tokens, config.hidden_size)
    placement = model.model.place(hidden)
    for layer, block in enumerate(model.model.layers):
        if isinstance(block.self_attn, FullAttention):
            cache.update(keys, keys, layer)
        elif block.self_attn is not None:
            block.self_attn(hidden, placement, cache)
    return cache
