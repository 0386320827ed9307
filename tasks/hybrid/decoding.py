"""Token-by-token decoding over tensors of fixed size, recorded as a CUDA graph on a CUDA device.

Shapes: B batch, R is B or 1 (rows without padding share their positions), V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from layerwright.kernels.choice import triton_obstacle
from layerwright.tasks.hybrid.cache import HybridCache
from layerwright.tasks.hybrid.mixers.fixed_cache import FixedLayer, FixedRecurrentLayer
from layerwright.tasks.hybrid.mixers.full import UNLIMITED
from layerwright.tasks.hybrid.mixers.none import EmptyCacheLayer
from layerwright.tasks.hybrid.mixers.streaming import kept_positions
from layerwright.tasks.hybrid.placement import Placement

FIXED_KINDS = {"full", "streaming", "window", "gated_recurrence", "none"}
WARM_UP = 2  # steps that compile kernels and allocate workspaces before the recorded step


class FixedCache(Cache):
    """A prompt's cache with fixed-size layers, to which only single tokens are added.

    Args:
        cache: the cache after the prompt; emptied layer by layer, so that it never exists twice.
        tokens: largest number of slots, those of the prompt included.

    Raises:
        ValueError: the cache has seen no prompt, or a layer's cache has no fixed-size form.
    """

    def __init__(self, cache: HybridCache, tokens: int):
        if not cache.seen_tokens:
            raise ValueError("the cache is empty: read the prompt with it before decoding")
        mixers = [spec["mixer"] for spec in cache.layer_specs]
        unsupported = sorted({mixer["kind"] for mixer in mixers} - FIXED_KINDS)
        if unsupported:
            raise ValueError(
                f"layers of kind {', '.join(unsupported)} have no fixed-size cache: use generate, "
                "or the model's forward pass with its own cache"
            )
        layers: list[Any] = []
        for layer, mixer in zip(cache.layers, mixers, strict=True):
            layers.append(self._fixed(layer, mixer, cache, tokens))
            layer.reset()
        super().__init__(layers=layers)
        cache.reset()

    @staticmethod
    def _fixed(layer: Any, mixer: dict[str, Any], cache: HybridCache, tokens: int) -> Any:
        kind = mixer["kind"]
        if kind == "none":
            return EmptyCacheLayer()
        sinks, window = (
            (0, UNLIMITED) if kind == "full" else (mixer.get("sinks", 0), mixer["window"])
        )
        positions = cache.positions if kind == "full" else layer.positions
        if positions is None:
            positions = kept_positions(cache.seen_tokens, sinks, window)
        positions = positions.to(layer.keys.device)
        states = layer.keys, layer.values, positions, sinks, window, tokens
        if kind == "gated_recurrence":
            return FixedRecurrentLayer(*states, state=layer.state, slot_keys=layer.slot_keys)
        return FixedLayer(*states)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, positions: Tensor
    ) -> Any:
        layer: Any = self.layers[layer_idx]
        return layer.update(key_states, value_states, positions)

    def tensors(self) -> list[Tensor]:
        """All tensors that a new token changes, layer by layer."""
        fixed = [layer for layer in self.layers if isinstance(layer, FixedLayer)]
        return [x for layer in fixed for x in layer.tensors()]


class FixedDecoder:
    """Decodes one token per row after a prompt, with a cache of fixed size.

    On a CUDA device with Triton, the first step is recorded as a CUDA graph, which later steps
    replay. Elsewhere the same code runs without a graph.

    Args:
        model: HybridForCausalLM on one device, in evaluation mode.
        cache: the cache that read the prompt; it is emptied.
        new_tokens: largest number of steps.

    Raises:
        ValueError: see FixedCache.
    """

    @torch.no_grad()
    def __init__(self, model: Any, cache: HybridCache, new_tokens: int):
        self.model, self.steps_left = model, new_tokens
        weight = model.model.embed_tokens.weight
        if cache.positions is None:
            self.positions = torch.full((1, 1), cache.seen_tokens, device=weight.device)
        else:
            self.positions = cache.positions.amax(1, keepdim=True) + 1
        self.cache = FixedCache(cache, cache.seen_tokens + new_tokens)
        self.ids: Tensor | None = None
        self.logits: Tensor
        self.graph: torch.cuda.CUDAGraph | None = None

    @torch.no_grad()
    def step(self, ids_B1: Tensor) -> Tensor:
        """Logits (B, 1, V) after these tokens. The next step overwrites them.

        Raises:
            ValueError: all `new_tokens` steps have been taken.
        """
        if not self.steps_left:
            raise ValueError("no room for another token: create the decoder with more new_tokens")
        self.steps_left -= 1
        if self.ids is None:
            self.ids = ids_B1.clone()
            device = self.positions.device
            if device.type == "cuda" and triton_obstacle("cuda", device.index or 0) is None:
                with torch.cuda.device(device):
                    self._record()
        self.ids.copy_(ids_B1)
        if self.graph is not None:
            self.graph.replay()
        else:
            self.logits = self._run()
        return self.logits

    def _run(self) -> Tensor:
        inner = self.model.model
        hidden = inner.embed_tokens(self.ids)
        rotary = inner.rotary_emb(hidden, self.positions)
        placement = Placement(self.positions, rotary, 0, None, False, inner.rotary_emb)
        hidden = inner.run_layers(hidden, placement, past_key_values=self.cache)
        self.positions.add_(1)
        return self.model.head(hidden)

    def _record(self) -> None:
        """Warms up and records a step, then restores the tensors that it changed."""
        changed = [self.positions, *self.cache.tensors()]
        before = [x.clone() for x in changed]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self._run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.logits = self._run()
        for x, value in zip(changed, before, strict=True):
            x.copy_(value)
        self.graph = graph
