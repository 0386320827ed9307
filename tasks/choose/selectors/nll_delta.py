"""Convert the layers with the smallest measured rise of the NLL (arXiv 2606.27791)."""

from pydantic import Field

from layerwright.tasks.choose.base import Candidate, Problem, ordinal
from layerwright.tasks.choose.ranking import Ranking
from layerwright.tasks.contracts.profile import LayerProfile


class NllDelta(Ranking):
    """Order the layers by the NLL rise of converting each alone, smallest first.

    damage(l) = language_nats(l) + recall_weight recall_nats(l), measured by `sensitivity` for the
    recipe's first strategy. Negative damages are not clipped, so they come first. The paper's rule
    is recall_weight 0 and leave_out_recall 0. It does not see the loss of recall, which may depend
    on only one or two layers.
    """

    name = "nll_delta"
    recall_weight: float = Field(default=0.0, ge=0, allow_inf_nan=False)  # of recall damage
    leave_out_recall: int = Field(default=0, ge=0)  # never convert these: they lower recall most

    def key(self, problem: Problem, layer: LayerProfile) -> tuple[float, str]:
        measured = problem.damage(layer, problem.candidates[0])
        damage = measured.language_nats + self.recall_weight * measured.recall_nats
        score = "NLL rise" if self.recall_weight == 0 else "weighted damage"
        return damage, f"{score} {damage:.4f} nats, {{rank}}"

    def excluded(self, problem: Problem, candidate: Candidate) -> dict[int, str]:
        excluded = super().excluded(problem, candidate)
        if not self.leave_out_recall:
            return excluded
        falls = {
            layer.layer: problem.damage(layer, candidate).recall_nats
            for layer in problem.layers
            if layer.layer not in excluded
        }
        largest = sorted(falls, key=lambda layer: (-falls[layer], layer))[: self.leave_out_recall]
        return excluded | {
            layer: f"excluded: recall damage {falls[layer]:.4f} nats, "
            f"{ordinal(rank)} largest of {len(falls)}"
            for rank, layer in enumerate(largest, 1)
        }
