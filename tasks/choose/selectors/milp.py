"""Select the plan with the least damage under budgets, by a MILP, and refine it on the model."""

import numpy as np
from pydantic import Field

from layerwright.tasks.choose.base import Problem, Selector, TrialOptions, named
from layerwright.tasks.choose.budgets import Budgets
from layerwright.tasks.choose.cover import Column, DamageWeights, Language, columns_of, solve
from layerwright.tasks.choose.refinement import Refinement, RefineOptions
from layerwright.tasks.contracts.plan import PlanItem
from layerwright.tasks.contracts.profile import Damage


class Milp(Budgets, Selector):
    """Minimise the sum of the damages over exact covers of the layers.

        min  sum_i x_i (max(language_i, 0) + recall_weight max(recall_i, 0))
        s.t. the chosen columns cover each layer exactly once (a column is a layer or a run)
             the limits of Budgets
             x binary

    Negative damages are measurement noise. They count as 0, so that they cannot offset real damage
    elsewhere. Every converted column costs an extra millionth of a nat, so a layer is kept unless
    its conversion is needed. Remaining ties go to the smaller unclipped damage, then to fewer KV
    bytes, then to the lower layer.

    Damages of single layers do not add up. With ``refine``, whole plans are measured on the real
    model and the plan is improved (tasks/choose/refinement.py).
    """

    name = "milp"
    language: Language = "nll"  # the rise of the NLL, or the KL to the base
    recall_weight: float = Field(default=0.1, ge=0, allow_inf_nan=False)  # of recall damage
    refine: RefineOptions | None = None  # options of the refinement; None: no refinement

    @property
    def tries(self) -> TrialOptions | None:
        return self.refine

    def estimate_tokens(self, layers: int, row_tokens: int) -> int:
        if self.refine is None:
            return 0
        # a single change runs half of the layers, on average, and the head
        return round(0.6 * self.refine.evaluations * self.refine.tokens(row_tokens))

    def select(self, problem: Problem) -> tuple[PlanItem, ...]:
        weights = DamageWeights(self.language, self.recall_weight)
        columns = columns_of(problem)
        costs = np.array([weights.of(column.damage) for column in columns])
        chosen = solve(costs, columns, self.limits(problem, columns), weights)
        if chosen is None:
            raise self.out_of_reach(problem, columns)

        def to_item(column: Column) -> PlanItem:
            run = problem.layers[column.start : column.stop]
            if column.candidate is not None and column.damage is not None:
                saving = problem.saving(run, column.candidate)
                return column.item(problem, f"{_format(column.damage)}; {saving}")
            alternatives = [c for c in columns if c.candidate and c.layers == column.layers]
            best = min(alternatives, key=lambda other: weights.of(other.damage), default=None)
            if best is None or best.candidate is None or best.damage is None:
                return column.item(problem, "kept: no strategy can convert it")
            saving, spec = problem.saving(run, best.candidate), best.candidate.spec
            reason = f"kept: {named(spec)} does {_format(best.damage)}, and {saving}"
            return column.item(problem, reason)

        if self.refine is None:
            return tuple(map(to_item, chosen))
        uncapped = self.model_copy(update={"max_recall_nats": None}).limits(problem, columns)
        refinement = Refinement(
            self.refine, problem, columns, uncapped, weights, self.max_recall_nats, to_item
        )
        return refinement.run(chosen)


def _format(damage: Damage) -> str:
    return f"damage {damage.language_nats:.4f} nats language, {damage.recall_nats:.4f} nats recall"
