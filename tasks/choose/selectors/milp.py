"""The plan of least measured damage under budgets, and its refinement on the real model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field

from layerwright.tasks.choose.base import Problem, Selector, TrialOptions, named
from layerwright.tasks.choose.budgets import Budgets
from layerwright.tasks.choose.columns import Column, Language, Price, columns_of
from layerwright.tasks.choose.cover import solve
from layerwright.tasks.choose.refinement import Refinement, RefineOptions
from layerwright.tasks.contracts.plan import PlanItem
from layerwright.tasks.contracts.profile import Damage


class Milp(Budgets, Selector):
    """Minimise the sum of the damages; every layer is in exactly one thing that is chosen.

        min  sum_i x_i (max(language_i, 0) + recall_weight max(recall_i, 0))
        s.t. the chosen stretches cover each layer once (exact cover; runs included)
             the limits of Budgets
             x binary

    A negative damage is noise of the measurement: unclipped, its sum would pay for real damage
    elsewhere. Ties are decided by a millionth of a nat per converted stretch (what need not be
    converted is kept), then for the smaller unclipped damage, fewer KV bytes, the lower layer.

    Damages of single layers do not add up. With ``refine`` the plan is measured as a whole on the
    real model and changed where that helps (tasks/choose/refinement.py).

    Attributes:
        language: the rise of the NLL, or the KL to the base.
        recall_weight: nats of language damage that one nat of recall damage is worth.
        refine: how; None leaves the first plan.
    """

    name: ClassVar[str] = "milp"

    language: Language = "nll"
    recall_weight: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    refine: RefineOptions | None = None

    @property
    def tries(self) -> TrialOptions | None:
        return self.refine

    def estimate_tokens(self, layers: int, row_tokens: int) -> int:
        if self.refine is None:
            return 0
        # single changes run half of the layers on average, and the head
        return round(0.6 * self.refine.evaluations * self.refine.tokens(row_tokens))

    def select(self, problem: Problem) -> tuple[PlanItem, ...]:
        price = Price(self.language, self.recall_weight)
        columns = columns_of(problem)
        costs = np.array([price.of(column.damage) for column in columns])
        chosen = solve(costs, columns, self.limits(problem, columns), price)
        if chosen is None:
            raise self.out_of_reach(problem, columns)

        def written(column: Column) -> PlanItem:
            return self._item(problem, column, columns, price)

        if self.refine is None:
            return tuple(map(written, chosen))
        uncapped = self.model_copy(update={"max_recall_nats": None}).limits(problem, columns)
        refinement = Refinement(
            self.refine, problem, columns, uncapped, price, self.max_recall_nats, written
        )
        return refinement.run(chosen)

    def _item(
        self, problem: Problem, column: Column, columns: Sequence[Column], price: Price
    ) -> PlanItem:
        run = problem.layers[column.start : column.stop]
        if column.candidate is not None and column.damage is not None:
            saving = problem.saving_of_run(run, column.candidate)
            return column.item(problem, f"{figures(column.damage)}; {saving}")
        others = [c for c in columns if c.candidate and c.layers == column.layers]
        best = min(others, key=lambda other: price.of(other.damage), default=None)
        if best is None or best.candidate is None or best.damage is None:
            return column.item(problem, "kept: there is nothing else it can become")
        saving = problem.saving_of_run(run, best.candidate)
        reason = f"kept: as {named(best.candidate.spec)} {figures(best.damage)}, and it {saving}"
        return column.item(problem, reason)


def figures(damage: Damage) -> str:
    return f"damage {damage.language_nats:.4f} nats language, {damage.recall_nats:.4f} nats recall"
