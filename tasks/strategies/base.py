"""The base class of strategies: layer specs, fitted tensors and KV bytes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor

from layerwright.tasks.components import Component
from layerwright.tasks.contracts.costs import LayerSpec
from layerwright.tasks.hybrid.configuration import FULL_LAYER, HybridConfig
from layerwright.tasks.hybrid.mixers import MIXERS
from layerwright.tasks.hybrid.mixers.attention import CacheSize
from layerwright.tasks.strategies.fitting.stretch import Stretch

REMOVED: LayerSpec = {"mixer": {"kind": "none"}, "feed_forward": {"kind": "none"}}


class Strategy(Component):
    """The base class of strategies, each of which converts a layer or a run of layers.

    Attributes:
        joins: a plan item with several layers is converted as a whole, not layer by layer.
        merges: neighbouring items with this strategy and the same options count as one item.
    """

    kind: ClassVar[str] = "strategy"
    room: ClassVar[str] = "layerwright.tasks.strategies"
    joins: ClassVar[bool] = False
    merges: ClassVar[bool] = False

    @abstractmethod
    def layer_spec(self, base_spec: LayerSpec) -> LayerSpec:
        """The hybrid spec of one layer, from the layer's spec in the base.

        It has every parameter of its mixer: nothing fills in defaults later.
        """

    def layer_specs(self, base_specs: Sequence[LayerSpec]) -> list[LayerSpec]:
        """The specs of a run of layers; layer by layer unless the strategy joins them."""
        return [self.layer_spec(spec) for spec in base_specs]

    def resolved(self, scores: Mapping[str, float]) -> Strategy:
        """The strategy with the options that depend on a layer's scores; by default itself.

        InputError if the profile lacks a score that the options need.
        """
        return self

    @property
    def fits(self) -> bool:
        """Whether `fit` returns tensors, so that a conversion needs calibration rows."""
        return False

    @property
    def patches_below(self) -> bool:
        """Whether the strategy changes the feed-forward of the layer below, which must have one."""
        return False

    @property
    def keeps_feed_forward(self) -> bool:
        """Whether a layer with this strategy has a feed-forward that the layer above may change."""
        return self.layer_spec(FULL_LAYER)["feed_forward"]["kind"] == "mlp"

    def fit(self, stretch: Stretch) -> dict[str, Tensor]:
        """Fits the tensors that differ from the base, by full name.

        Called from the bottom layer to the top; all layers below are already converted.

        Raises:
            InputError: the neighbouring layers or the calibration rows do not allow a fit.
        """
        return {}

    @property
    def decides_together(self) -> bool:
        """Whether a layer's form depends on the other layers with this strategy."""
        return MIXERS[self.layer_spec(FULL_LAYER)["mixer"]["kind"]].decides_together

    def reach_tokens(self) -> int | None:
        """Largest number of tokens that a query sees as exact keys; None for all earlier tokens."""
        mixer = self.layer_spec(FULL_LAYER)["mixer"]
        return MIXERS[mixer["kind"]].reach_tokens(mixer)

    def kv_bytes(
        self,
        config: HybridConfig,
        context_tokens: int,
        *,
        element_bytes: int,
        batch: int = 1,
        layer: int = 0,
    ) -> int:
        """Bytes of the converted layer's cache after ``context_tokens`` tokens in ``batch`` rows.

        ``config`` is the base's. ``element_bytes`` are those of a key's element, 2 for bfloat16.
        """
        mixer = self.layer_spec(config.layer_specs[layer])["mixer"]
        size = CacheSize(context_tokens, batch, element_bytes)
        return MIXERS[mixer["kind"]].kv_bytes(config, mixer, size)
