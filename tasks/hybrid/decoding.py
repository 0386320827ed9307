"""Decoding token by token over tensors of fixed size, recorded as a CUDA graph where there is one.

Shapes: B batch, R is B or 1 (rows without padding stand at the same positions), V vocabulary.
"""

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from layerwright.kernels.choice import fused_obstacle
from layerwright.tasks.hybrid.cache import HybridCache
from layerwright.tasks.hybrid.mixers.fixed_cache import FixedLayer, FixedRecurrentLayer
from layerwright.tasks.hybrid.mixers.full import EVERYTHING
from layerwright.tasks.hybrid.mixers.none import EmptyCacheLayer
from layerwright.tasks.hybrid.mixers.streaming import kept_positions
from layerwright.tasks.hybrid.placement import Placement

FIXED_KINDS = {"full", "streaming", "gated_recurrence", "none"}
WARM_UP = 2  # steps that compile kernels and make workspaces before one is recorded


class FixedCache(Cache):
    """The cache of a prompt, turned into fixed layers that only single tokens are added to.

    Args:
        cache: after the prompt; emptied layer by layer, so that no second copy of all is held.
        tokens: slots that there will be at most, those of the prompt included.

    Raises:
        ValueError: no prompt yet, or a layer whose cache has no fixed form.
    """

    def __init__(self, cache: HybridCache, tokens: int):
        if not cache.seen_tokens:
            raise ValueError("the prompt must be read before decoding begins")
        mixers = [spec["mixer"] for spec in cache.layer_specs]
        other = sorted({mixer["kind"] for mixer in mixers} - FIXED_KINDS)
        if other:
            raise ValueError(
                f"layers of kind {', '.join(other)} have no cache of fixed size: use generate, or "
                "the model's forward pass with its own cache"
            )
        layers = []
        for layer, mixer in zip(cache.layers, mixers, strict=True):
            layers.append(self._fixed(layer, mixer, cache, tokens))
            layer.reset()
        super().__init__(layers=layers)
        cache.reset()

    @staticmethod
    def _fixed(
        layer: CacheLayerMixin, mixer: dict, cache: HybridCache, tokens: int
    ) -> CacheLayerMixin:
        kind = mixer["kind"]
        if kind == "none":
            return EmptyCacheLayer()
        sinks, window = (0, EVERYTHING) if kind == "full" else (mixer["sinks"], mixer["window"])
        positions = cache.positions if kind == "full" else layer.positions
        if positions is None:
            positions = kept_positions(cache.seen_tokens, sinks, window)
        positions = positions.to(layer.keys.device)
        held = layer.keys, layer.values, positions, sinks, window, tokens
        if kind == "gated_recurrence":
            return FixedRecurrentLayer(*held, state=layer.state, slot_keys=layer.slot_keys)
        return FixedLayer(*held)

    def update(self, key_states, value_states, layer_idx, positions):
        """As HybridCache's, for one token a row."""
        return self.layers[layer_idx].update(key_states, value_states, positions)

    def tensors(self) -> list[Tensor]:
        """All that a token changes, layer by layer."""
        return [
            x for layer in self.layers if isinstance(layer, FixedLayer) for x in layer.tensors()
        ]


class FixedDecoder:
    """One token a row at a time, after a prompt: `generate`'s inner step, with no cache to grow.

    On a CUDA device with Triton the first step is recorded as a CUDA graph and replayed, so that
    none of its some hundred kernels is launched by the host. Elsewhere the same code runs as it is.

    Args:
        model: HybridForCausalLM on one device, in evaluation mode.
        cache: of the prompt, which it read; emptied.
        new_tokens: how many steps there will be at most.

    Raises:
        ValueError: as FixedCache.
    """

    @torch.no_grad()
    def __init__(self, model, cache: HybridCache, new_tokens: int):
        self.model, self.steps_left = model, new_tokens
        weight = model.model.embed_tokens.weight
        if cache.positions is None:
            self.positions = torch.full((1, 1), cache.seen_tokens, device=weight.device)
        else:
            self.positions = cache.positions.amax(1, keepdim=True) + 1
        self.cache = FixedCache(cache, cache.seen_tokens + new_tokens)
        self.ids: Tensor | None = None
        self.logits: Tensor | None = None
        self.graph: torch.cuda.CUDAGraph | None = None

    @torch.no_grad()
    def step(self, ids_B1: Tensor) -> Tensor:
        """Logits (B, 1, V) after these tokens. The next step overwrites them.

        Raises:
            ValueError: more steps than there is room for.
        """
        if not self.steps_left:
            raise ValueError("no room for another token: make the decoder with more new_tokens")
        self.steps_left -= 1
        if self.ids is None:
            self.ids = ids_B1.clone()
            device = self.positions.device
            if device.type == "cuda" and fused_obstacle("cuda", device.index or 0) is None:
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
        placement = Placement(
            positions=self.positions,
            rotary=inner.rotary_emb(hidden, self.positions),
            past_tokens=0,
            past_positions=None,
            contiguous=False,
            rotary_at=inner.rotary_emb,
        )
        hidden = inner.run_layers(hidden, placement, past_key_values=self.cache)
        self.positions.add_(1)
        return self.model.head(hidden)

    def _record(self) -> None:
        """Warm-up and recording on copies of what a step changes, which are put back."""
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
        for x, kept in zip(changed, before, strict=True):
            x.copy_(kept)
        self.graph = graph
