"""How many parameters a layer has, by its spec, without its weights ever being made."""

from __future__ import annotations

import copy
import json
from functools import cache
from typing import Any

import torch

from layerwright.tasks.hybrid.configuration import HybridConfig
from layerwright.tasks.hybrid.layer import HybridLayer
from layerwright.tasks.hybrid.modeling import HybridForCausalLM


class ParameterCounts:
    """Counts for one base.

    Args:
        config: of the base as a hybrid.
    """

    def __init__(self, config: HybridConfig) -> None:
        self._config = copy.deepcopy(config)
        self._of = cache(self._count)

    def layer(self, index: int, spec: dict[str, Any]) -> int:
        """Of layer ``index`` with this spec."""
        return self._of(index, json.dumps(spec, sort_keys=True))

    def others(self) -> int:
        """Embeddings, final norm and head; tied ones once."""
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
