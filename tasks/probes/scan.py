"""Measures what one changed run of layers does to a model, from the bottom layer to the top.

Shapes: R rows, T tokens a row.
"""

import torch
from torch import Tensor

from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.models.conversion import converted, layer_of
from layerwright.tasks.models.layer_turn import at_work
from layerwright.tasks.passes.stream import Stream
from layerwright.tasks.probes.yardstick import Figures, Yardstick
from layerwright.tasks.strategies.base import LayerSpec, Strategy
from layerwright.tasks.strategies.fitting.stretch import Stretch


class Scan:
    """A walk over a model's layers that measures, at each layer, the effect of a conversion there.

    The input of the current layer is stored, so only the layers from it on run again.

    Args:
        model: not changed. The base itself, or a converted model.
        base: the base model; strategies convert its layers and are fitted to them. The same object
            as ``model`` if that is the base.
        calibration: (R, T) rows to fit strategies on; None if no strategy fits.
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
            self._evaluation = yardstick.streams(model)
            self._calibration = self._target = None
            if calibration is not None:
                self._calibration = self._target = Stream(model, calibration, yardstick.keep)
                if base is not model:
                    self._target = Stream(base, calibration, yardstick.keep)

    @torch.no_grad()
    def advance(self) -> None:
        """Moves to the next layer."""
        streams = (*self._evaluation, self._calibration, self._target)
        for stream in {id(stream): stream for stream in streams}.values():
            if stream is not None:
                stream.advance()
        self.layer += 1

    @torch.no_grad()  # not inference mode: fitted tensors become parameters
    def figures_with(self, strategy: Strategy, layers: int = 1) -> Figures:
        """Figures of the model with ``strategy`` on ``layers`` layers from the current one on.

        Raises:
            InputError: the strategy is not possible here, such as a patch without a layer below.
        """
        start, stop = self.layer, self.layer + layers
        base_specs = self.base.config.layer_specs[start:stop]
        specs = dict(enumerate(strategy.layer_specs(base_specs), start))
        tensors = self._fit(strategy, dict(enumerate(base_specs, start))) if strategy.fits else {}
        with converted(self.model, specs, tensors, donor=self.base):
            lowest = min(map(layer_of, tensors), default=start)
            return self.yardstick.figures(self._evaluation, min(lowest, start))

    def _fit(self, strategy: Strategy, base_specs: dict[int, LayerSpec]) -> dict[str, Tensor]:
        assert self._calibration is not None
        assert self._target is not None
        stop, x = self.layer + len(base_specs), self._calibration
        targets = self._target.outputs(stop)
        states = (x.ids, x.placement, x.before, x.states, targets)
        stretch = Stretch(self.model, self.layer, stop, *states, at_work)
        if self.model is self.base:
            return strategy.fit(stretch)
        # a strategy may read the base's weights
        with converted(self.model, base_specs, donor=self.base):
            return strategy.fit(stretch)
