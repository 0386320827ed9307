"""The columns of the exact cover: every way to keep or convert a layer or a run, with its cost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from layerwright.tasks.choose.base import Candidate, LayerOption, Problem
from layerwright.tasks.contracts.plan import PassTime, PlanItem
from layerwright.tasks.contracts.profile import Damage, MeasuredDamage
from layerwright.tasks.errors import InputError

Language = Literal["nll", "kl"]


@dataclass(frozen=True)
class Column:
    """Layers ``start`` to ``stop`` (exclusive), kept or converted together.

    Attributes:
        candidate: the strategy; None for a kept layer.
        damage: damage of converting only these layers; None for a kept layer.
        kv_bytes: at the problem's context length, batch 1.
        parameters: of these layers.
        time: of these layers; None if it was not measured.
    """

    start: int
    stop: int
    candidate: Candidate | None
    damage: Damage | None
    kv_bytes: int
    parameters: int
    time: PassTime | None

    @property
    def layers(self) -> range:
        return range(self.start, self.stop)

    def item(self, problem: Problem, reason: str) -> PlanItem:
        run = problem.layers[self.start : self.stop]
        if self.candidate is None:
            return problem.kept(run[0], reason)
        return problem.converted_run(run, self.candidate, reason)


@dataclass(frozen=True)
class DamageWeights:
    """How damages count: ``language`` selects the rise of the NLL or the KL to the base."""

    language: Language
    recall_weight: float

    def language_nats(self, damage: MeasuredDamage) -> float:
        """Return the language damage in nats.

        Raises:
            InputError: the profile has no KL, because it was edited by hand or is old.
        """
        if self.language == "nll":
            return damage.language_nats
        if damage.kl_nats is None:
            raise InputError(
                "the profile has no KL to the base",
                where="choose.selector.language",
                remedy="profile again with `- name: sensitivity`, or set `language: nll`",
            )
        return damage.kl_nats

    def of(self, damage: MeasuredDamage | None) -> float:
        """Return the weighted sum in nats; a negative part is noise and counts as 0."""
        if damage is None:
            return 0.0
        return max(self.language_nats(damage), 0.0) + self.recall_weight * recall_nats(damage)

    def signed(self, damage: MeasuredDamage | None) -> float:
        """Return the weighted sum with negative parts, to break ties."""
        if damage is None:
            return 0.0
        return self.language_nats(damage) + self.recall_weight * damage.recall_nats


def recall_nats(damage: MeasuredDamage | None) -> float:
    return max(damage.recall_nats, 0.0) if damage else 0.0


def columns_of(problem: Problem) -> list[Column]:
    """Return a column for each kept layer, each converted layer and each measured run.

    Raises:
        InputError: the profile has no damage of a strategy; names the profiler to add.
    """
    columns = []
    for layer in problem.layers:
        index = layer.layer
        kept = problem.kept_kv_bytes(layer), problem.layer_parameters[index]
        time = problem.base_time(index, index + 1)
        columns.append(Column(index, index + 1, None, None, *kept, time))
        for candidate in problem.candidates:
            if problem.possible(layer, candidate):
                damage, option = problem.damage(layer, candidate), candidate.layers[index]
                columns.append(_column(index, index + 1, candidate, damage, option))
            for run in candidate.runs:
                damage_of_run = layer.damage_of(candidate.spec, run.stop - run.start)
                if run.start == index and damage_of_run is not None:
                    columns.append(_column(run.start, run.stop, candidate, damage_of_run, run))
    return columns


def _column(
    start: int, stop: int, candidate: Candidate, damage: Damage, option: LayerOption
) -> Column:
    if not math.isfinite(damage.language_nats + damage.recall_nats + (damage.kl_nats or 0.0)):
        name = candidate.strategy.name
        raise InputError(
            f"the damage of layers {start} to {stop - 1} as {name} is not finite",
            where="profile",
            remedy="remove the strategy, or profile in float32",
        )
    return Column(start, stop, candidate, damage, option.kv_bytes, option.parameters, option.time)
