"""Runs rows of tokens up through a model, one layer at a time.

All rows pass a layer before the next layer runs. A model whose layers are read from disk is
therefore read only once, whatever the number of rows.
Shapes: B rows in a batch, T tokens a row, D hidden size, V vocabulary.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from layerwright.tasks.hybrid.layer import HybridLayer
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.hybrid.placement import Placement
from layerwright.tasks.models.layer_turn import at_work
from layerwright.tasks.passes.states import Keep, States

Watch = Callable[[int, Tensor, Tensor], None]  # (batch index, layer input, layer output)


def watch_nothing(batch: int, x_in: Tensor, x_out: Tensor) -> None:
    """The default Watch: does nothing."""


def rows_at_once(device: torch.device) -> int:
    """Rows per batch: on a CPU one row is enough to use all cores and fits its cache."""
    return 1 if device.type == "cpu" else 8


def run_rows(
    model: HybridForCausalLM,
    states: States,
    placement: Placement,
    start: int,
    stop: int,
    keep: Keep = tuple,
    watch: Watch = watch_nothing,
) -> States:
    """The output of layer ``stop`` - 1 for all rows, from the input of layer ``start``."""
    for layer in range(start, stop):
        block = model.model.layers[layer]

        def outputs(block: HybridLayer = block, states: States = states) -> Iterator[Tensor]:
            for batch, x_in in enumerate(states):
                x_out = block(x_in, placement)
                watch(batch, x_in, x_out)
                yield x_out

        with at_work(block):
            states = keep(outputs())
    return states


class Stream:
    """The input of the current layer for all rows, and the input of the layer below.

    Outputs of layers above are kept once computed, until the stream has passed them; ``advance`` is
    then free.

    Args:
        ids: (R, T) token ids, on any device.
        at_once: rows per batch; by default it depends on the device.
        from_layer: the layer to start at and the states of its input; by default the first layer.

    Attributes:
        ids: (B, T) of each batch.
        placement: shared by all batches, because all rows have the same length.
        layer: index of the current layer.
    """

    def __init__(
        self,
        model: HybridForCausalLM,
        ids: Tensor,
        keep: Keep = tuple,
        *,
        at_once: int | None = None,
        from_layer: tuple[int, States] | None = None,
    ) -> None:
        self.model, self.keep = model, keep
        at_once = at_once or rows_at_once(model.device)
        self.ids = [batch.to(model.device) for batch in ids.split(at_once)]
        embed = model.model.embed_tokens
        self.placement = model.model.place(embed.weight.new_empty(1, ids.shape[1], 0))
        self.before: States | None = None  # the input of the layer below
        self.layer, states = from_layer or (0, keep(embed(batch) for batch in self.ids))
        self._ahead: list[States] = [states]  # inputs of layers layer, layer + 1, ...

    @property
    def states(self) -> States:
        """The input of the current layer."""
        return self._ahead[0]

    def outputs(self, stop: int, watch: Watch = watch_nothing) -> States:
        """The output of layer ``stop`` - 1; ``watch`` sees the layers that have not run yet."""
        while (above := self.layer + len(self._ahead) - 1) < stop:
            self._ahead.append(self._run(self._ahead[-1], above, above + 1, watch))
        return self._ahead[stop - self.layer]

    def advance(self, watch: Watch = watch_nothing) -> None:
        """Moves to the next layer."""
        self.outputs(self.layer + 1, watch)
        self.before = self._ahead.pop(0)
        self.layer += 1

    def replace(self, states: States) -> None:
        """Uses ``states``, the same states stored elsewhere; drops states of other layers."""
        self.before, self._ahead = None, [states]

    def logits(self, first: int, last: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields (ids, logits of the last tokens) per batch, running layers ``first`` and above.

        ``first`` is the current layer or the layer below.
        """
        states = self.states if first == self.layer else self.before
        assert states is not None
        outputs = self._run(states, first, len(self.model.model.layers))
        for ids, out in zip(self.ids, outputs, strict=True):
            yield ids, self.model.head(out if last is None else out[:, -last:])

    def _run(self, states: States, start: int, stop: int, watch: Watch = watch_nothing) -> States:
        return run_rows(self.model, states, self.placement, start, stop, self.keep, watch)
