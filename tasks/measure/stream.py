"""Some rows on their way up through a model: the input of one layer, and what lies near it.

Shapes: B rows in a batch, T tokens a row, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from tasks.hybrid.modeling import HybridForCausalLM

States = tuple[Tensor, ...]  # (B, T, D) per batch


class Stream:
    """The input of layer ``layer`` for all rows, and that of the layer below.

    Outputs of the layers above are kept once they were asked for, until the stream has passed
    them: ``advance`` then costs nothing.
    """

    def __init__(self, model: HybridForCausalLM, ids: Tensor) -> None:
        self.model = model
        at_once = 1 if model.device.type == "cpu" else 8  # one row fills a CPU, and its cache
        self.ids = [batch.to(model.device) for batch in ids.split(at_once)]
        states, self.placements = zip(*map(model.model.prepare, self.ids), strict=True)
        self.layer = 0
        self.before: States | None = None  # the input of the layer below
        self._ahead: list[States] = [states]  # inputs of layers layer, layer + 1, ...

    @property
    def states(self) -> States:
        """The input of ``layer``."""
        return self._ahead[0]

    def outputs(self, stop: int) -> States:
        """The output of layer ``stop`` - 1."""
        while self.layer + len(self._ahead) <= stop:
            above = self.layer + len(self._ahead) - 1
            pairs = zip(self._ahead[-1], self.placements, strict=True)
            run = self.model.model.run_layers
            self._ahead.append(tuple(run(x, placement, above, above + 1) for x, placement in pairs))
        return self._ahead[stop - self.layer]

    def advance(self) -> None:
        """To the input of the next layer."""
        self.outputs(self.layer + 1)
        self.before = self._ahead.pop(0)
        self.layer += 1

    def logits(self, first: int, last: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """(ids, logits) per batch: layers ``first`` and above run; logits of the last tokens.

        ``first`` is the layer whose input is held, or the one below it.
        """
        states = self.states if first == self.layer else self.before
        assert states is not None
        for ids, state, placement in zip(self.ids, states, self.placements, strict=True):
            out = self.model.model.run_layers(state, placement, first)
            yield ids, self.model.head(out if last is None else out[:, -last:])
