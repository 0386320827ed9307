"""Angular distance between the ends of runs of blocks.

Shapes: B rows in the batch, L layers, D hidden size.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from tasks.hybrid.modeling import HybridForCausalLM
from tasks.measure.blocks import Visit
from tasks.profile.base import BlockProfiler, Findings


class AngularDistance(BlockProfiler):
    """Angular distance of Gromov et al. (arXiv 2403.17887, eq. 5) at each row's last token.

    d(l, l + n) = mean over rows of arccos(<x_l, x_l+n> / (|x_l| |x_l+n|)) / pi, x_l (D,) being the
    residual stream before block l, for every run of n blocks: 0 is no turn, 1/2 a right angle.
    Scores, on the first block of each run: ``angular_distance_8`` for n = 8, and so on; the last
    n - 1 blocks begin no such run and have none.

    Attributes:
        lengths: of the runs; those that the model is too shallow for are left out.
    """

    name: ClassVar[str] = "angular_distance"

    lengths: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (
        *range(1, 17),
    )

    def begin(self, model: HybridForCausalLM, rows: Tensor) -> _Angles:
        return _Angles(self, len(model.model.layers))


class _Angles:
    def __init__(self, options: AngularDistance, layers: int) -> None:
        self.lengths = [n for n in options.lengths if n <= layers]
        self.layers = layers
        self.stream: list[Tensor] = []  # of the batch's last tokens, x_0 to x_L, (B, D) each
        self.sums = torch.zeros(layers + 1, layers + 1, dtype=torch.float64)
        self.rows = 0

    def visit(self, visit: Visit) -> None:
        if visit.layer == 0:
            self.stream = [visit.x_in[:, -1].double()]
        self.stream.append(visit.x_out[:, -1].double())
        if visit.layer == self.layers - 1:
            states = torch.stack(self.stream, dim=1)  # [B, L + 1, D]
            states = states / torch.linalg.vector_norm(states, dim=-1, keepdim=True)
            # rounding must not leave the domain of arccos
            angles = (states @ states.mT).clamp(-1, 1).arccos() / math.pi
            self.sums += angles.sum(0).cpu()
            self.rows += len(states)

    def findings(self) -> Findings:
        distances = (self.sums / self.rows).tolist()
        return Findings(
            scores=[
                {
                    f"angular_distance_{n}": distances[layer][layer + n]
                    for n in self.lengths
                    if layer + n <= self.layers
                }
                for layer in range(self.layers)
            ]
        )
