"""Counts the parameters of a layer from its spec, without allocating weights."""

import copy
import json
from functools import cache
from typing import Any

import torch

from layerwright.tasks.hybrid.configuration import HybridConfig
from layerwright.tasks.hybrid.layer import HybridLayer
from layerwright.tasks.hybrid.modeling import HybridForCausalLM


class ParameterCounts:
    """Parameter counts for one base model, from its hybrid configuration."""

    def __init__(self, config: HybridConfig) -> None:
        self._config = copy.deepcopy(config)
        self._cached_count = cache(self._count)

    def layer(self, index: int, spec: dict[str, Any]) -> int:
        """Parameters of layer ``index`` with this spec."""
        return self._cached_count(index, json.dumps(spec, sort_keys=True))

    def others(self) -> int:
        """Parameters of embeddings, final norm and head; tied weights count once."""
        with torch.device("meta"):
            model = HybridForCausalLM(self._config)
        total = sum(p.numel() for p in model.parameters())
        return total - sum(p.numel() for p in model.model.layers.parameters())

    def _count(self, index: int, spec: str) -> int:
        before = self._config.layer_specs[index]
        self._config.replace_layer_spec(index, json.loads(spec))
        with torch.device("meta"):
            layer = HybridLayer(self._config, index)
        self._config.replace_layer_spec(index, before)
        return sum(p.numel() for p in layer.parameters())
