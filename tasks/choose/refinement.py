"""Refine a plan by measuring whole plans, because the damages of single layers interact."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from layerwright.tasks.choose.base import Problem, TrialOptions
from layerwright.tasks.choose.budgets import recalls
from layerwright.tasks.choose.cover import Column, DamageWeights, Limit, Vector, least_cover, solve
from layerwright.tasks.contracts.plan import PlanItem
from layerwright.tasks.contracts.profile import MeasuredDamage

Chosen = list[Column]
# the largest numbers of new columns that a round tries, in order; None: any number. Swapping two
# columns takes 2.
REACHES = (None, 8, 4, 2, 2, 2, 2, 2)
WHOLE_PLANS = len(REACHES)  # evaluations of whole plans in a round, at most


class RefineOptions(TrialOptions):
    """Options of the refinement, and the text that it measures on."""

    evaluations: int = Field(default=120, ge=1)  # a count, not a time: same recipe, same plan
    # also start from all layers converted, keep layers until the limits hold, take the better
    from_converted: bool = False


@dataclass
class Refinement:
    """Local search over plans, in rounds.

    A round measures single changes of the plan, solves the cover with these costs, and measures the
    resulting plans as a whole. The cost of a column is the change of the whole plan's damage when
    the column replaces the plan's columns in the same layers. If that was not measured (the column
    does not fit the boundaries of the plan's columns, or too few evaluations are left), the cost is
    the difference of the damages of single columns. The round solves for any number of changes,
    then for at most 8, 4 and 2, each time excluding the plans that were tried before. The first
    plan with less measured damage ends the round. A round without such a plan ends the search.
    """

    options: RefineOptions
    problem: Problem
    columns: Sequence[Column]
    limits: Sequence[Limit]  # all limits except the limit on recall
    weights: DamageWeights
    # of the measured whole plan; of two plans above it, the one with less recall damage is better
    max_recall_nats: float | None
    to_item: Callable[[Column], PlanItem]  # makes the plan item of a column

    def __post_init__(self) -> None:
        assert self.problem.trial is not None, "the step gives a trial to selectors that need one"
        self.trial, self.evaluations_left = self.problem.trial, self.options.evaluations
        self.alone = np.array([self.weights.of(column.damage) for column in self.columns])

    def run(self, first: Chosen) -> tuple[PlanItem, ...]:
        """Return the best plan; it is never worse than ``first``."""
        starts = [first]
        # the second start costs two whole plans, and single changes
        if self.options.from_converted and self.evaluations_left > WHOLE_PLANS + 2:
            starts += self._start_from_converted()
        measured = [self._measure(start) for start in starts]
        best = min(range(len(starts)), key=lambda index: self._rank(measured[index]))
        plan, damage = self._improved(starts[best], measured[best])
        summary = f"the whole plan measures {_format(damage)}"
        if plan != first:
            summary += f", before refinement {_format(measured[0])}"
        items = [self.to_item(column) for column in plan]
        notes = [
            ("; changed by refinement" if column not in first else "")
            + (f"; {summary}" if column.candidate is not None else "")
            for column in plan
        ]
        noted = zip(items, notes, strict=True)
        return tuple(item.model_copy(update={"reason": item.reason + note}) for item, note in noted)

    def _improved(self, plan: Chosen, damage: MeasuredDamage) -> tuple[Chosen, MeasuredDamage]:
        tried = [plan]
        while self.evaluations_left > WHOLE_PLANS:
            better = self._better(plan, damage, self._single_changes(plan), tried)
            if better is None:
                break
            plan, damage = better
        return plan, damage

    def _single_changes(self, plan: Chosen) -> dict[int, MeasuredDamage]:
        """Damage of the plan with a single column changed, by the column's index."""
        bounds = {column.start for column in plan} | {column.stop for column in plan}
        fitting = [
            index
            for index in np.flatnonzero(self._not_in(plan)).tolist()
            if {self.columns[index].start, self.columns[index].stop} <= bounds
        ]
        estimates = self._estimated_costs(plan)
        fitting.sort(key=lambda index: estimates[index])
        measured = sorted(fitting[: self.evaluations_left - WHOLE_PLANS])
        instead = [self.to_item(self.columns[index]) for index in measured]
        damages = self.trial.changes([*map(self.to_item, plan)], instead)
        self.evaluations_left -= len(measured)
        return {i: damage for i, damage in zip(measured, damages, strict=True) if damage}

    def _better(
        self,
        plan: Chosen,
        damage: MeasuredDamage,
        single: dict[int, MeasuredDamage],
        tried: list[Chosen],
    ) -> tuple[Chosen, MeasuredDamage] | None:
        """A plan with less measured damage, and its damage; None if the round finds none."""
        costs, new = self._costs(plan, damage, single), self._not_in(plan)
        limits = [*self.limits, *self._recall_limit(plan, damage, single)]
        for reach in REACHES:
            bounded = [*limits, *map(self._excluding, tried)]
            if reach is not None:
                bounded.append((new, float(reach)))
            chosen = solve(costs, self.columns, bounded, self.weights)
            if chosen is None:
                break  # then no plan with fewer changes exists either
            tried.append(chosen)
            chosen_damage = self._measure(chosen)
            if self._rank(chosen_damage) < self._rank(damage):
                return chosen, chosen_damage
        return None

    def _costs(
        self, plan: Chosen, damage: MeasuredDamage, single: dict[int, MeasuredDamage]
    ) -> Vector:
        """(N,) change of the whole plan's damage by each column; 0 for the plan's own columns."""
        costs = self._estimated_costs(plan)
        for index, changed in single.items():
            costs[index] = self.weights.of(changed) - self.weights.of(damage)
        return costs * self._not_in(plan)

    def _recall_limit(
        self, plan: Chosen, damage: MeasuredDamage, single: dict[int, MeasuredDamage]
    ) -> list[Limit]:
        """The limit on the change of recall damage. If the plan already exceeds the limit, and no
        plan can get below it, the limit is the least change that a plan can reach.
        """
        if self.max_recall_nats is None:
            return []
        alone = recalls(self.columns)
        changes = alone - self._replaced(plan, alone)
        for index, changed in single.items():
            changes[index] = changed.recall_nats - damage.recall_nats
        changes = changes * self._not_in(plan)
        room = self.max_recall_nats - damage.recall_nats
        if room < 0 and (cover := least_cover(changes, self.columns, self.limits)) is not None:
            room = max(room, float(changes @ cover) + 1e-6)
        return [(changes, room)]

    def _not_in(self, plan: Chosen) -> Vector:
        """(N,) 1 for the columns that are not in a plan, else 0."""
        return np.array([column not in plan for column in self.columns], dtype=np.float64)

    def _excluding(self, plan: Chosen) -> Limit:
        return 1 - self._not_in(plan), float(len(plan) - 1)

    def _estimated_costs(self, plan: Chosen) -> Vector:
        """(N,) damage of each column alone, minus that of the plan's columns that it replaces."""
        return self.alone - self._replaced(plan, self.alone)

    def _replaced(self, plan: Chosen, values: Vector) -> Vector:
        """(N,) for each column, the sum of the plan's values, per layer, over its layers."""
        of_plan = [self.columns.index(column) for column in plan]
        sizes = [len(column.layers) for column in plan]
        per_layer = np.repeat(values[of_plan] / sizes, sizes)
        return np.array([per_layer[column.start : column.stop].sum() for column in self.columns])

    def _start_from_converted(self) -> list[Chosen]:
        """Convert every layer with the least damage, then keep layers where that gains most."""
        converted = [c for c in self.columns if c.candidate is not None]
        convertible = {layer for column in converted for layer in column.layers}
        fixed = [c for c in self.columns if c.candidate is None and c.start not in convertible]
        allowed = [*converted, *fixed]
        costs = np.array([self.weights.of(column.damage) for column in allowed])
        all_converted = solve(costs, allowed, [], self.weights)
        assert all_converted is not None  # there are no limits
        damage = self._measure(all_converted)
        costs = self._costs(all_converted, damage, self._single_changes(all_converted))
        start = solve(costs, self.columns, self.limits, self.weights)
        return [] if start is None else [start]

    def _measure(self, plan: Chosen) -> MeasuredDamage:
        self.evaluations_left -= 1
        return self.trial.measure([*map(self.to_item, plan)])

    def _rank(self, damage: MeasuredDamage) -> tuple[float, float]:
        cap = self.max_recall_nats
        excess = 0.0 if cap is None else max(damage.recall_nats - cap, 0.0)
        return excess, self.weights.of(damage)


def _format(damage: MeasuredDamage) -> str:
    kl = f", KL {damage.kl_nats:.4f}" if damage.kl_nats is not None else ""
    return f"{damage.language_nats:.4f} nats language{kl}, {damage.recall_nats:.4f} nats recall"
