"""The smallest measured rise of the NLL first (arXiv 2606.27791)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from layerwright.tasks.choose.base import Candidate, Problem, ordinal
from layerwright.tasks.choose.ranking import Ranked, Ranking, by_figure
from layerwright.tasks.contracts.profile import LayerProfile


class NllDelta(Ranking):
    """Order the layers by the NLL rise of each converted alone, and convert the smallest first.

    damage(l) = language_nats(l) + recall_weight recall_nats(l), as measured by `sensitivity` for
    the recipe's first strategy; with its sign, so that a gain comes first. Ties go to the lower
    layer. The paper's rule is recall_weight 0 with no layer left out; it is blind to recall, which
    one or two layers may carry.

    Attributes:
        recall_weight: nats of language damage that one nat of recall damage is worth.
        leave_out_recall: this many layers, those whose recall falls most, are never converted.
    """

    name: ClassVar[str] = "nll_delta"

    recall_weight: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    leave_out_recall: int = Field(default=0, ge=0)

    def order(self, problem: Problem, layers: Sequence[LayerProfile]) -> list[Ranked]:
        def damage(layer: LayerProfile) -> float:
            found = problem.damage(layer, problem.candidates[0])
            return found.language_nats + self.recall_weight * found.recall_nats

        what = "NLL rise" if self.recall_weight == 0 else "weighted damage"
        return by_figure(layers, damage, f"smallest {what} {{place}}: {{figure:.4f}} nats")

    def why_never(self, problem: Problem, candidate: Candidate) -> dict[int, str]:
        never = super().why_never(problem, candidate)
        if not self.leave_out_recall:
            return never
        falls = {
            layer.layer: problem.damage(layer, candidate).recall_nats
            for layer in problem.layers
            if layer.layer not in never
        }
        largest = sorted(falls, key=lambda layer: (-falls[layer], layer))[: self.leave_out_recall]
        return never | {
            layer: f"left out: its recall falls by {falls[layer]:.4f} nats, "
            f"{ordinal(rank)} most of {len(falls)}"
            for rank, layer in enumerate(largest, 1)
        }
