"""Bytes of the KV cache after a context of a given length, counted on the cache itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import product
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from layerwright.tasks.contracts.evaluation import Presentation
from layerwright.tasks.contracts.workload import Workload
from layerwright.tasks.evaluate.arms import Arms
from layerwright.tasks.evaluate.base import Figure, Metric, measured
from layerwright.tasks.hybrid.cache import HybridCache
from layerwright.tasks.hybrid.mixers.full import FullAttention
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.timing.speed import prefill

Length = Annotated[int, Field(gt=0)]


class KVCache(Metric):
    """Bytes of the cache's tensors after n tokens, in the model's dtype.

    ``kv_bytes.<n>`` for a single row and ``kv_bytes.<n>.b<k>`` for k rows. The bytes are counted on
    a cache, not computed from a formula. Up to ``prefill_tokens``, a prefill fills the cache. For a
    longer context, each layer's mixer gets n tokens of zeros, without a forward pass of the model.
    """

    name: ClassVar[str] = "kv_cache"
    presentation: ClassVar[Mapping[str, Presentation]] = {
        "kv_bytes": Presentation(
            label="KV cache", part="by_length", help="measured; lower is better"
        )
    }

    tokens: Annotated[tuple[Length, ...], Field(min_length=1)] = (1024, 8192)
    batches: Annotated[tuple[Length, ...], Field(min_length=1)] = (1,)
    prefill_tokens: Annotated[int, Field(ge=0)] = 1024

    def workloads(self) -> list[Workload]:
        pairs = product(self.tokens, self.batches)
        return [Workload(tokens, batch=batch) for tokens, batch in pairs]

    def names(self) -> tuple[str, ...]:
        return tuple(f"kv_bytes.{load}" for load in self.workloads())

    def estimate_tokens(self) -> int:
        return sum(
            load.prompt_tokens * load.batch
            for load in self.workloads()
            if load.prompt_tokens <= self.prefill_tokens
        )

    def measure(self, arms: Arms) -> Iterator[Figure]:
        for load in self.workloads():
            with_prefill = load.prompt_tokens <= self.prefill_tokens
            count = partial(_count, with_prefill=with_prefill)
            for arm in arms.names:
                [cache_bytes] = arms.item_results(
                    arm, "kv-cache", [load, with_prefill], [load], count, what=f"{arm}: KV cache"
                )
                yield measured(
                    f"kv_bytes.{load}",
                    arm,
                    cache_bytes,
                    unit="bytes",
                    higher_is_better=False,
                    count=1,
                    detail="counted on the cache after "
                    + ("a prefill" if with_prefill else "as many tokens of zeros in each layer"),
                )


def _count(
    model: HybridForCausalLM, loads: Iterable[Workload], with_prefill: bool
) -> Iterator[int]:
    for load in loads:
        if with_prefill:
            yield prefill(model, load.prompt_tokens, load.batch)[0].nbytes()
        else:
            yield zero_filled_cache(model, load.prompt_tokens, load.batch).nbytes()


@torch.inference_mode()
def zero_filled_cache(model: HybridForCausalLM, tokens: int, batch: int = 1) -> HybridCache:
    """Return a cache after each layer's mixer has processed ``tokens`` tokens of zeros.

    For full attention, whose time is quadratic, keys and values are written to the cache directly.
    """
    config = model.config
    cache = HybridCache(config)
    shape = (batch, config.num_key_value_heads, tokens, config.head_dim)
    zeros = torch.zeros(shape, dtype=model.dtype, device=model.device)
    hidden = torch.zeros(
        (batch, tokens, config.hidden_size), dtype=model.dtype, device=model.device
    )
    placement = model.model.place(hidden)
    for layer, block in enumerate(model.model.layers):
        if isinstance(block.self_attn, FullAttention):
            cache.update(zeros, zeros, layer)
        elif block.self_attn is not None:
            block.self_attn(hidden, placement, cache)
    return cache
