"""A plan changed while that helps, with its damage measured as a whole: damages interact."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from pydantic import Field

from layerwright.tasks.choose.base import Problem, Trial, TrialOptions
from layerwright.tasks.choose.columns import Column, Price, recall_nats
from layerwright.tasks.choose.cover import Limit, Vector, least_cover, solve
from layerwright.tasks.contracts.plan import PlanItem
from layerwright.tasks.contracts.profile import MeasuredDamage

Chosen = list[Column]
# how many stretches a round may change: any number, then ever fewer; a single swap changes two
REACHES = (None, 8, 4, 2, 2, 2, 2, 2)
WHOLE_PLANS = len(REACHES)  # evaluations that a round needs besides those of single changes


class RefineOptions(TrialOptions):
    """How a plan is refined, and on what.

    Attributes:
        evaluations: whole-model measurements at most, so that the same recipe gives the same plan.
        from_converted: also start from every layer converted, give layers back, take the better.
    """

    evaluations: int = Field(default=120, ge=1)
    from_converted: bool = False


class Refinement:
    """Rounds of: measure single changes within the plan, solve the cover with them, try it whole.

    In a round the cost of a column is what the damage of the whole plan would become with the
    column in place of what is there, less what it is. Where that was not measured, because the
    column begins or ends inside a stretch of the plan or the evaluations run short, it is the
    difference of the damages alone. The cover of least cost is sought with any number of changes,
    then with at most 8, 4 and 2, what was tried before left out; the first that is better as a
    whole ends the round. A round in which none is ends the search.

    Args:
        limits: without the one on recall.
        max_recall_nats: of the whole plan, measured; what exceeds it is worse than all else.
        written: a column's plan item.
    """

    def __init__(
        self,
        options: RefineOptions,
        problem: Problem,
        columns: Sequence[Column],
        limits: Sequence[Limit],
        price: Price,
        max_recall_nats: float | None,
        written: Callable[[Column], PlanItem],
    ) -> None:
        assert problem.trial is not None, "the node gives a trial to selectors that try"
        self.trial: Trial = problem.trial
        self.options, self.columns, self.limits, self.price = options, columns, limits, price
        self.max_recall_nats, self.written = max_recall_nats, written
        self.left = options.evaluations

    def run(self, first: Chosen) -> tuple[PlanItem, ...]:
        """The better plan, never a worse one than ``first``."""
        starts = [first]
        # two whole plans, and single changes of the second
        if self.options.from_converted and self.left > WHOLE_PLANS + 2:
            starts += self._given_back()
        measured = [self._measure(start) for start in starts]
        best = min(range(len(starts)), key=lambda index: self._rank(measured[index]))
        plan, damage = self._improved(starts[best], measured[best])
        before, after = measured[0], damage
        told = f"measured together {_words(after)}"
        if plan != first:
            told += f", before refinement {_words(before)}"
        items = []
        for column in plan:
            item = self.written(column)
            reason = item.reason
            if column not in first:
                reason += "; changed by refinement"
            if column.candidate is not None:
                reason += f"; {told}"
            items.append(item.model_copy(update={"reason": reason}))
        return tuple(items)

    def _improved(self, plan: Chosen, damage: MeasuredDamage) -> tuple[Chosen, MeasuredDamage]:
        tried = [plan]
        while self.left > WHOLE_PLANS:
            single = self._single_changes(plan)
            better = self._better(plan, damage, single, tried)
            if better is None:
                break
            plan, damage = better
        return plan, damage

    def _single_changes(self, plan: Chosen) -> dict[int, MeasuredDamage]:
        """What the plan becomes with one column changed, by the column's index."""
        bounds = {column.start for column in plan} | {column.stop for column in plan}
        open_to = [
            index
            for index in np.flatnonzero(self._new(plan)).tolist()
            if {self.columns[index].start, self.columns[index].stop} <= bounds
        ]
        isolated = self._isolated(plan)
        most_promising = sorted(open_to, key=lambda index: isolated[index])
        asked = sorted(most_promising[: self.left - WHOLE_PLANS])
        items = [self.written(column) for column in plan]
        instead = [self.written(self.columns[index]) for index in asked]
        found = self.trial.changes(items, instead)
        self.left -= len(asked)
        return {i: damage for i, damage in zip(asked, found, strict=True) if damage is not None}

    def _better(
        self,
        plan: Chosen,
        damage: MeasuredDamage,
        single: dict[int, MeasuredDamage],
        tried: list[Chosen],
    ) -> tuple[Chosen, MeasuredDamage] | None:
        costs, new = self._costs(plan, damage, single), self._new(plan)
        limits = [*self.limits, *self._recall_limit(plan, damage, single)]
        for reach in REACHES:
            bounded = [*limits, *map(self._other_than, tried)]
            if reach is not None:
                bounded.append((new, float(reach)))
            chosen = solve(costs, self.columns, bounded, self.price)
            if chosen is None:
                break  # nor is there one with fewer changes
            tried.append(chosen)
            found = self._measure(chosen)
            if self._rank(found) < self._rank(damage):
                return chosen, found
        return None

    def _costs(
        self, plan: Chosen, damage: MeasuredDamage, single: dict[int, MeasuredDamage]
    ) -> Vector:
        """(N,) what each column adds to the damage of the whole plan; nothing, if it is in it."""
        costs = self._isolated(plan)
        for index, found in single.items():
            costs[index] = self.price.of(found) - self.price.of(damage)
        return costs * self._new(plan)

    def _recall_limit(
        self, plan: Chosen, damage: MeasuredDamage, single: dict[int, MeasuredDamage]
    ) -> list[Limit]:
        """What the plan's recall may still lose, or must win back as far as that can be."""
        if self.max_recall_nats is None:
            return []
        alone = np.array([recall_nats(column.damage) for column in self.columns])
        falls = alone - self._carried(plan, alone)
        for index, found in single.items():
            falls[index] = found.recall_nats - damage.recall_nats
        falls = falls * self._new(plan)
        room = self.max_recall_nats - damage.recall_nats
        if room < 0 and (most := least_cover(falls, self.columns, self.limits)) is not None:
            room = max(room, float(falls @ most) + 1e-6)
        return [(falls, room)]

    def _new(self, plan: Chosen) -> Vector:
        """(N,) 1 for the columns that are not in a plan."""
        return np.array([column not in plan for column in self.columns], dtype=np.float64)

    def _other_than(self, plan: Chosen) -> Limit:
        """Cuts one plan off."""
        return 1 - self._new(plan), float(len(plan) - 1)

    def _isolated(self, plan: Chosen) -> Vector:
        """(N,) damage of each column alone less that of the parts of the plan in its place."""
        alone = np.array([self.price.of(column.damage) for column in self.columns])
        return alone - self._carried(plan, alone)

    def _carried(self, plan: Chosen, values: Vector) -> Vector:
        """(N,) of each column, the values of the plan's columns in its layers, by their shares."""
        per_layer = np.concatenate(
            [
                np.full(len(column.layers), values[self.columns.index(column)] / len(column.layers))
                for column in plan
            ]
        )
        return np.array([per_layer[column.start : column.stop].sum() for column in self.columns])

    def _given_back(self) -> list[Chosen]:
        """From every layer converted at least damage, with layers given back as limits allow."""
        converted = [c for c in self.columns if c.candidate is not None]
        reached = {layer for column in converted for layer in column.layers}
        fixed = [c for c in self.columns if c.candidate is None and c.start not in reached]
        alone = [*converted, *fixed]
        costs = np.array([self.price.of(column.damage) for column in alone])
        everything = solve(costs, alone, [], self.price)
        assert everything is not None  # there are no limits
        damage = self._measure(everything)
        costs = self._costs(everything, damage, self._single_changes(everything))
        given_back = solve(costs, self.columns, self.limits, self.price)
        return [] if given_back is None else [given_back]

    def _measure(self, plan: Chosen) -> MeasuredDamage:
        self.left -= 1
        return self.trial.measure([self.written(column) for column in plan])

    def _rank(self, damage: MeasuredDamage) -> tuple[float, float]:
        cap = self.max_recall_nats
        excess = 0.0 if cap is None else max(damage.recall_nats - cap, 0.0)
        return excess, self.price.of(damage)


def _words(damage: MeasuredDamage) -> str:
    kl = f", KL {damage.kl_nats:.4f}" if damage.kl_nats is not None else ""
    return f"{damage.language_nats:.4f} nats language{kl}, {damage.recall_nats:.4f} nats recall"
