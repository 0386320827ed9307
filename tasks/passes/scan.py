"""Layers of a model changed one stretch at a time, from the bottom to the top.

Shapes: R rows, T tokens a row.
"""

from __future__ import annotations

import torch
from torch import Tensor

from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.models.conversion import converted, layer_of
from layerwright.tasks.offload.layer_turn import at_work
from layerwright.tasks.probes.yardstick import Figures, Yardstick
from layerwright.tasks.strategies.base import LayerSpec, Strategy
from layerwright.tasks.strategies.fitting.stretch import Stretch, StretchBatches


class Scan:
    """A walk over a model's layers; at each, what would become of the model if it were changed.

    The inputs of the layer at hand are kept, and only the layers from it on run again.

    Args:
        model: left as it is. The base itself, or one that is converted already.
        base: the base; its layers are what strategies convert and are fitted to. The same object
            as ``model`` where that is the base.
        calibration: (R, T) rows that strategies are fitted on; None where none of them fits.
    """

    def __init__(
        self,
        model: HybridForCausalLM,
        base: HybridForCausalLM,
        yardstick: Yardstick,
        calibration: Tensor | None,
    ) -> None:
        self.model, self.base, self.yardstick = model, base, yardstick
        self.layer = 0
        with torch.no_grad():
            self._measured = yardstick.streams(model)
            self._fitted = self._target = None
            if calibration is not None:
                self._fitted = self._target = yardstick.stream(model, calibration)
                if base is not model:
                    self._target = yardstick.stream(base, calibration)

    @torch.no_grad()
    def advance(self) -> None:
        """To the next layer."""
        streams = {id(s): s for s in (*self._measured, self._fitted, self._target) if s is not None}
        for stream in streams.values():
            stream.advance()
        self.layer += 1

    # fitted tensors become parameters, which inference mode would not let go
    @torch.no_grad()
    def figures_with(self, strategy: Strategy, layers: int = 1) -> Figures:
        """Of the model in which ``layers`` layers from this one on are what ``strategy`` makes.

        Raises:
            InputError: they cannot become this, such as a patch that has no layer below.
        """
        start, stop = self.layer, self.layer + layers
        base_specs = self.base.config.layer_specs[start:stop]
        specs = dict(enumerate(strategy.layer_specs(base_specs), start))
        tensors = self._fit(strategy, dict(enumerate(base_specs, start))) if strategy.fits else {}
        with converted(self.model, specs, tensors, donor=self.base):
            lowest = min(map(layer_of, tensors), default=start)
            return self.yardstick.figures(self._measured, min(lowest, start))

    def _fit(self, strategy: Strategy, base_specs: dict[int, LayerSpec]) -> dict[str, Tensor]:
        stretch = self._stretch(self.layer + len(base_specs))
        if self.model is self.base:
            return strategy.fit(stretch)
        with converted(self.model, base_specs, donor=self.base):  # a strategy reads their weights
            return strategy.fit(stretch)

    def _stretch(self, stop: int) -> Stretch:
        assert self._fitted is not None
        assert self._target is not None
        targets, x = self._target.outputs(stop), self._fitted
        batches = StretchBatches(x.ids, x.placement, x.before, x.states, targets)
        return Stretch(self.model, self.layer, stop, batches, at_work)
