"""Executes a plan in memory, from the bottom layer to the top, and fits strategies on the way.

Shapes: B rows in a batch, T tokens a row, D hidden size.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.models.conversion import assign_tensors, change_layer, layer_of, shallow_copy
from layerwright.tasks.models.layer_turn import at_work
from layerwright.tasks.passes.states import Keep, States
from layerwright.tasks.passes.stream import Stream, run_rows
from layerwright.tasks.strategies.fitting.stretch import Stretch
from layerwright.tasks.strategies.specs import Assignment

# returns calibration rows (R, T); called only if they are needed
Rows = Callable[[], Tensor]


@torch.no_grad()
def convert_in_place(
    model: HybridForCausalLM,
    assignments: Sequence[Assignment],
    rows: Rows,
    after: Callable[[int], None] = lambda layers: None,
    keep: Keep = tuple,
) -> dict[str, Tensor]:
    """Converts a base model to the hybrid that a plan describes.

    Strategies that fit get two residual streams of the calibration rows: the base's and that of the
    model as converted so far. Layers above the last fitted strategy do not run.

    Args:
        model: a base model; changed in place. Untouched modules stay the same objects.
        assignments: the plan's strategies with their runs of layers, in order.
        rows: called at most once, if a strategy fits.
        after: called after each run of layers with its number of layers.
        keep: stores the two streams between layers.

    Returns:
        The fitted tensors by full name, in the model's dtype, on the CPU.

    Raises:
        InputError: a strategy cannot be fitted on these layers.
    """
    fits = [index for index, (_, _, strategy) in enumerate(assignments) if strategy.fits]
    last_fit = fits[-1] if fits else -1
    streams = _Streams(model, rows(), keep) if fits else None
    fitted: dict[str, Tensor] = {}
    for index, (start, stop, strategy) in enumerate(assignments):
        base_specs = list(model.config.layer_specs[start:stop])
        tensors: dict[str, Tensor] = {}
        if streams and index <= last_fit:
            streams.advance_base(start, stop)
            if strategy.fits:
                tensors = strategy.fit(streams.stretch(start, stop))
        specs = strategy.layer_specs(base_specs)
        for layer, (spec, before) in enumerate(zip(specs, base_specs, strict=True), start):
            if spec != before:
                change_layer(model, layer, spec)
        assign_tensors(model, tensors)
        fitted |= {name: tensor.to("cpu", model.dtype) for name, tensor in tensors.items()}
        if streams and index <= last_fit:
            streams.advance_converted(min(map(layer_of, tensors), default=start), start, stop)
        after(stop - start)
    return fitted


def converted_copy(
    base: HybridForCausalLM, assignments: Sequence[Assignment], rows: Rows, keep: Keep = tuple
) -> HybridForCausalLM:
    """Like `convert_in_place`, on a copy of the base; unchanged tensors are shared."""
    model = shallow_copy(base)
    convert_in_place(model, assignments, rows, keep=keep)
    return model


class _Streams:
    """The calibration rows' hidden states in base and converted model, layer by layer."""

    def __init__(self, model: HybridForCausalLM, rows: Tensor, keep: Keep) -> None:
        self.model, self.keep = model, keep
        bottom = Stream(model, rows, keep)
        self.ids, self.placement = bottom.ids, bottom.placement
        self.base: States = bottom.states
        self.converted: States = self.base
        self.before: States | None = None

    def advance_base(self, start: int, stop: int) -> None:
        """Advances the base's stream to the output of layer stop - 1, before conversion."""
        self.base = self._run(self.base, start, stop)

    def advance_converted(self, first: int, start: int, stop: int) -> None:
        """Advances the converted stream to the output of layer stop - 1.

        ``first`` is the lowest layer that was changed: ``start`` or the layer below.
        """
        assert start - 1 <= first <= start
        if first < start:
            assert self.before is not None
            self.converted = self._run(self.before, first, start)
        self.before = self._run(self.converted, start, stop - 1)
        self.converted = self._run(self.before, stop - 1, stop)

    def stretch(self, start: int, stop: int) -> Stretch:
        states = (self.ids, self.placement, self.before, self.converted, self.base)
        return Stretch(self.model, start, stop, *states, at_work)

    def _run(self, states: States, start: int, stop: int) -> States:
        return run_rows(self.model, states, self.placement, start, stop, self.keep)
