"""A whole plan carried out in memory, from the bottom to the top, fitting what must be fitted.

Shapes: B rows in a batch, T tokens a row, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.models.conversion import change_layer, give_tensors, layer_of, shallow_copy
from layerwright.tasks.offload.layer_turn import at_work
from layerwright.tasks.passes.states import Keep, States
from layerwright.tasks.passes.stream import Stream, run_rows
from layerwright.tasks.strategies.fitting.stretch import Stretch, StretchBatches
from layerwright.tasks.strategies.specs import Assignment

# gives calibration rows (R, T) when they are needed
Rows = Callable[[], Tensor]


@torch.no_grad()
def convert_in_place(
    model: HybridForCausalLM,
    assignments: Sequence[Assignment],
    rows: Rows,
    after: Callable[[int], None] = lambda layers: None,
    keep: Keep = tuple,
) -> dict[str, Tensor]:
    """Turn a base into the hybrid that a plan describes.

    Strategies that fit are given two streams of the calibration rows: the base's, and that of the
    model as converted so far. Nothing is run above the last of them.

    Args:
        model: a base, every layer as it was; changed in place. Modules that the conversion leaves
            alone stay the same objects.
        assignments: the plan's stretches; they cover the layers in order.
        rows: called at most once, if anything has to be fitted.
        after: called with the number of layers of each stretch that is done.
        keep: where the two streams wait between layers.

    Returns:
        The fitted tensors, by their full names, in the model's dtype and on the CPU.

    Raises:
        InputError: a strategy cannot be fitted here.
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
        give_tensors(model, tensors)
        fitted |= {name: tensor.to("cpu", model.dtype) for name, tensor in tensors.items()}
        if streams and index <= last_fit:
            streams.advance_converted(min(map(layer_of, tensors), default=start), start, stop)
        after(stop - start)
    return fitted


def converted_copy(
    base: HybridForCausalLM,
    assignments: Sequence[Assignment],
    rows: Rows,
    keep: Keep = tuple,
) -> HybridForCausalLM:
    """The base as a plan wants it; tensors that stay the same are shared.

    Args:
        base: left as it is.
        rows: gives calibration rows, for strategies that fit.
        keep: as in `convert_in_place`.
    """
    model = shallow_copy(base)
    convert_in_place(model, assignments, rows, keep=keep)
    return model


class _Streams:
    """The calibration rows on their way through base and converted model, layer by layer."""

    def __init__(self, model: HybridForCausalLM, rows: Tensor, keep: Keep) -> None:
        self.model, self.keep = model, keep
        bottom = Stream(model, rows, keep)
        self.ids, self.placement = bottom.ids, bottom.placement
        self.base: States = bottom.states
        self.converted: States = self.base
        self.before: States | None = None

    def advance_base(self, start: int, stop: int) -> None:
        """The base's stream to the output of layer stop - 1, whose layers are the base's still."""
        self.base = self._run(self.base, start, stop)

    def advance_converted(self, first: int, start: int, stop: int) -> None:
        """The converted stream to the output of layer stop - 1.

        ``first`` is the lowest layer that was changed: ``start``, or the one before it.
        """
        assert start - 1 <= first <= start
        if first < start:
            assert self.before is not None
            self.converted = self._run(self.before, first, start)
        self.before = self._run(self.converted, start, stop - 1)
        self.converted = self._run(self.before, stop - 1, stop)

    def stretch(self, start: int, stop: int) -> Stretch:
        batches = StretchBatches(self.ids, self.placement, self.before, self.converted, self.base)
        return Stretch(self.model, start, stop, batches, at_work)

    def _run(self, states: States, start: int, stop: int) -> States:
        return run_rows(self.model, states, self.placement, start, stop, self.keep)
