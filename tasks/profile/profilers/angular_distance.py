"""Angular distance between the input and the output of runs of blocks.

Shapes: R rows, L layers, D hidden size.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.passes.blocks import Visit, Visitor
from layerwright.tasks.passes.states import Record
from layerwright.tasks.profile.base import BlockProfiler, Findings, Lengths


class AngularDistance(BlockProfiler):
    """Angular distance of Gromov et al. (arXiv 2403.17887, eq. 5) at the last token of each row.

    d(l, l + n) = mean over rows of arccos(<x_l, x_l+n> / (|x_l| |x_l+n|)) / pi for every run of n
    blocks, where x_l (D,) is the residual stream before block l. 0 means the same direction, 1/2 a
    right angle. The score of a run is stored at its first block: ``angular_distance_8`` for n = 8,
    and so on. The last n - 1 blocks start no run of n blocks, so they have no such score.
    """

    name = "angular_distance"
    lengths: Lengths = tuple(range(1, 17))  # in blocks; those above the model's depth are skipped

    def begin(self, model: HybridForCausalLM, rows: Tensor) -> Visitor:
        return _LastTokens()

    def findings(self, records: Sequence[Record]) -> Findings:
        layers = len(records)
        sums = torch.zeros(layers + 1, layers + 1, dtype=torch.float64)
        stream = [records[0]["before"], *(record["after"] for record in records)]
        for row in zip(*stream, strict=True):
            states = torch.stack(row)  # [L + 1, D]
            states = states / torch.linalg.vector_norm(states, dim=-1, keepdim=True)
            # clamp: rounding can leave the domain of arccos
            sums += (states @ states.mT).clamp(-1, 1).arccos() / math.pi
        distances = (sums / len(stream[0])).tolist()
        scores: list[dict[str, float]] = [{} for _ in records]
        for n in self.lengths:
            for layer in range(layers - n + 1):
                scores[layer][f"angular_distance_{n}"] = distances[layer][layer + n]
        return Findings(scores)


class _LastTokens:
    """The last token of each row, before and after a block, (R, D) in fp64."""

    def __init__(self) -> None:
        self.before: list[Tensor] = []
        self.after: list[Tensor] = []

    def visit(self, visit: Visit) -> None:
        self.before.append(visit.x_in[:, -1].double().cpu())
        self.after.append(visit.x_out[:, -1].double().cpu())

    def record(self) -> Record:
        return {"before": torch.cat(self.before), "after": torch.cat(self.after)}
