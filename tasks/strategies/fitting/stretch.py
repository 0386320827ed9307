"""The data for a fit: a run of layers, with the residual streams of base and converted model.

Shapes: B rows, T tokens a row, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from layerwright.tasks.hybrid.layer import HybridLayer
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.hybrid.placement import Placement

Sample = tuple[int, Tensor, Tensor, Tensor]  # row, x (T, D), e (T, D), 1 if ordinary (T, 1)


@dataclass(frozen=True)
class StretchBatch:
    """One batch of calibration rows around a run of layers.

    Attributes:
        ids: (B, T) token ids.
        first_row: index of the batch's first row among all rows.
        before: (B, T, D) input of layer start - 1 in the converted model; None if start is 0.
        x: (B, T, D) input of layer start in the converted model.
        target: (B, T, D) output of layer stop - 1 in the base.
    """

    ids: Tensor
    placement: Placement
    first_row: int
    before: Tensor | None
    x: Tensor
    target: Tensor


@dataclass(frozen=True)
class Stretch:
    """A run of layers start .. stop - 1, still as in the base; all layers below are converted.

    Attributes:
        model: the partly converted model; not to be changed.
        ids, before, x, target: these tensors of StretchBatch, per batch; ``before`` is None at
            layer 0. States in files are read batch by batch.
        at_work: returns a context in which a layer's weights are in memory; the model may be larger
            than memory.
    """

    model: HybridForCausalLM
    start: int
    stop: int
    ids: Sequence[Tensor]
    placement: Placement
    before: Sequence[Tensor] | None
    x: Sequence[Tensor]
    target: Sequence[Tensor]
    at_work: Callable[[HybridLayer], AbstractContextManager[Any]] = nullcontext

    @property
    def batches(self) -> Iterator[StretchBatch]:
        first_row = 0
        all_before = self.before or (None,) * len(self.ids)
        for ids, before, x, target in zip(self.ids, all_before, self.x, self.target, strict=True):
            yield StretchBatch(ids, self.placement, first_row, before, x, target)
            first_row += len(ids)

    def samples(
        self, of_batch: Callable[[StretchBatch], tuple[Tensor, Tensor]]
    ) -> Iterator[Sample]:
        """Inputs and outputs of a fit, both (B, T, D) from ``of_batch``, row by row."""
        bos = self.model.config.bos_token_id
        for batch in self.batches:
            ordinary = ordinary_tokens(batch.ids, (batch.x, batch.target), bos, massive=10.0)
            x, e = of_batch(batch)
            for row, weight in enumerate(ordinary[..., None].float()):
                yield batch.first_row + row, x[row], e[row], weight

    @property
    def rows(self) -> int:
        return sum(map(len, self.ids))

    @property
    def layers(self) -> list[HybridLayer]:
        return list(self.model.model.layers[self.start : self.stop])

    @property
    def layer_before(self) -> HybridLayer | None:
        return self.model.model.layers[self.start - 1] if self.start else None


def ordinary_tokens(
    ids_BT: Tensor, streams: tuple[Tensor, ...], bos: int | None, massive: float | None
) -> Tensor:
    """Tokens to fit on, (B, T) bool.

    Left out, because they would dominate the fit: the first token of each row, BOS tokens, and
    tokens with massive activations (norm above ``massive`` times the row's median in any of the
    streams (B, T, D)). None leaves out none.
    """
    ordinary = torch.ones_like(ids_BT, dtype=torch.bool)
    if massive is None:
        return ordinary
    ordinary[:, 0] = False
    if bos is not None:
        ordinary &= ids_BT != bos
    for states in streams:
        norms = torch.linalg.vector_norm(states.float(), dim=-1)
        ordinary &= norms <= massive * norms.median(dim=1, keepdim=True).values
    return ordinary
