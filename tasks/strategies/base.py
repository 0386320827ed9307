"""What every strategy says: the specs of the layers, tensors of its own, and the cache needed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from layerwright.tasks.components import Component
from layerwright.tasks.hybrid.configuration import FULL_LAYER, HybridConfig, normalised_spec
from layerwright.tasks.hybrid.mixers import MIXERS
from layerwright.tasks.strategies.fitting.stretch import Stretch

LayerSpec = dict[str, Any]


class Strategy(Component):
    """One thing that a layer, or a stretch of layers, can become.

    A new transform of weights is one file here; a new kind of mixer needs a second one in
    tasks/hybrid/mixers/.

    Attributes:
        joins: a plan item of several layers becomes one thing, instead of one thing a layer.
        merges: neighbouring items of this strategy with the same options are one item.
    """

    kind: ClassVar[str] = "strategy"
    room: ClassVar[str] = "layerwright.tasks.strategies"
    joins: ClassVar[bool] = False
    merges: ClassVar[bool] = False

    @abstractmethod
    def layer_spec(self, base_spec: LayerSpec) -> LayerSpec:
        """The hybrid model's spec for one layer, given the one that the layer has in the base."""

    def layer_specs(self, base_specs: Sequence[LayerSpec]) -> list[LayerSpec]:
        """The specs of a stretch of layers; each by itself unless the strategy joins them."""
        return [self.layer_spec(spec) for spec in base_specs]

    def resolved(self, scores: Mapping[str, float]) -> Strategy:
        """The strategy with what it takes from one layer's profile filled in; itself by default.

        Raises:
            InputError: the profile lacks a score that the options ask for.
        """
        return self

    @property
    def fits(self) -> bool:
        """Whether `fit` has tensors to give, so that converting needs calibration text."""
        return False

    @property
    def patches_below(self) -> bool:
        """Whether it changes the feed-forward of the layer below, which must have kept one."""
        return False

    @property
    def keeps_feed_forward(self) -> bool:
        """Whether a layer of this strategy has one that the layer above could change."""
        return self.layer_spec(FULL_LAYER)["feed_forward"]["kind"] == "mlp"

    def fit(self, stretch: Stretch) -> dict[str, Tensor]:
        """Tensors that the base does not have, or has with other values, by their full names.

        Called from the bottom of the model to the top, with everything below already converted.

        Raises:
            InputError: the stretch's surroundings, or its data, do not allow it.
        """
        return {}

    @property
    def decides_together(self) -> bool:
        """Whether what a layer becomes depends on the other layers of this strategy."""
        return MIXERS[self.layer_spec(FULL_LAYER)["mixer"]["kind"]].decides_together

    def reach_tokens(self) -> int | None:
        """How many tokens a query of the layer sees one by one at most; None: all before it."""
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
        """Bytes of the converted layer's cache after ``context_tokens`` tokens of ``batch`` rows.

        Args:
            config: of the base as a hybrid.
            element_bytes: of one key element, such as 2 for bfloat16.
            layer: where layers of the base differ from each other.
        """
        spec = normalised_spec(self.layer_spec(config.layer_specs[layer]), layer)["mixer"]
        return MIXERS[spec["kind"]].kv_bytes(config, spec, context_tokens, batch, element_bytes)
