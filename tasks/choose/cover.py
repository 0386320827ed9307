"""Exact covers: every way to keep or convert a layer or a run, and the cheapest choice (HiGHS)."""

import contextlib
import ctypes
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from layerwright.tasks.choose.base import Candidate, LayerOption, Problem
from layerwright.tasks.contracts.plan import PassTime, PlanItem
from layerwright.tasks.contracts.profile import Damage, MeasuredDamage
from layerwright.tasks.errors import InputError, StepError

Language = Literal["nll", "kl"]
Vector = NDArray[np.float64]
Limit = tuple[Vector, float]  # (N,) the amount that each column uses, and the largest total

MICRONATS = 1e6  # unit of the objective: HiGHS's gap of 1e-6 units is far below measured damages


@dataclass(frozen=True)
class Column:
    """Layers ``start`` to ``stop`` (exclusive), kept or converted together."""

    start: int
    stop: int
    candidate: Candidate | None  # None for a kept layer
    damage: Damage | None  # of converting only these layers; None for a kept layer
    kv_bytes: int  # this and the time are at the problem's context length, batch 1
    parameters: int
    time: PassTime | None  # None: not measured

    @property
    def layers(self) -> range:
        return range(self.start, self.stop)

    def item(self, problem: Problem, reason: str) -> PlanItem:
        run = problem.layers[self.start : self.stop]
        if self.candidate is None:
            return problem.kept(run[0], reason)
        return problem.converted(run, self.candidate, reason)


@dataclass(frozen=True)
class DamageWeights:
    """How damages count: ``language`` selects the rise of the NLL or the KL to the base."""

    language: Language
    recall_weight: float

    def language_nats(self, damage: MeasuredDamage) -> float:
        """Language damage; InputError if the profile is old or edited, and lacks the KL."""
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
        """The weighted sum in nats; a negative part is noise and counts as 0."""
        if damage is None:
            return 0.0
        return max(self.language_nats(damage), 0.0) + self.recall_weight * recall_nats(damage)

    def signed(self, damage: MeasuredDamage | None) -> float:
        """The weighted sum with negative parts, to break ties."""
        if damage is None:
            return 0.0
        return self.language_nats(damage) + self.recall_weight * damage.recall_nats


def recall_nats(damage: MeasuredDamage | None) -> float:
    return max(damage.recall_nats, 0.0) if damage else 0.0


def columns_of(problem: Problem) -> list[Column]:
    """Return a column for each kept layer, each converted layer and each measured run; InputError
    if the profile has no damage of a strategy, or a damage is not finite.
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


def solve(
    costs: Vector, columns: Sequence[Column], limits: Sequence[Limit], weights: DamageWeights
) -> list[Column] | None:
    """The columns of the cheapest plan, in layer order; None if no plan meets the limits.
    ``costs``: (N,) nats. ``weights`` break ties.
    """
    mask = least_cover(costs * MICRONATS + _tie_breaks(columns, weights), columns, limits)
    if mask is None:
        return None
    chosen = [columns[index] for index in np.flatnonzero(mask).tolist()]
    return sorted(chosen, key=lambda column: column.start)


def _tie_breaks(columns: Sequence[Column], weights: DamageWeights) -> Vector:
    """(N,) micronats: 0 for a kept layer, between 1 and 1.01 for a converted column."""
    keys = [
        (weights.signed(column.damage), column.kv_bytes, index)
        for index, column in enumerate(columns)
        if column.candidate is not None
    ]
    extra = np.zeros(len(columns))
    for rank, (_, _, index) in enumerate(sorted(keys)):
        extra[index] = 1 + 0.01 * rank / len(keys)
    return extra


def least_cover(
    cost: Vector, columns: Sequence[Column], limits: Sequence[Limit]
) -> NDArray[np.bool_] | None:
    """Mask (N,) of the cheapest exact cover within the limits; None if there is none.

    min cost x  s.t.  A x = 1,  uses_i x <= limit_i,  x binary
    """
    layers = max(column.stop for column in columns)
    layer_of = [layer for column in columns for layer in column.layers]
    column_of = [index for index, column in enumerate(columns) for _ in column.layers]
    cover = csr_array((np.ones(len(layer_of)), (layer_of, column_of)), shape=(layers, len(columns)))
    within = [LinearConstraint(uses[None, :], -np.inf, limit) for uses, limit in limits]
    with _stdout_to_stderr():
        solution = milp(
            cost,
            integrality=np.ones(len(columns)),
            bounds=Bounds(0, 1),
            constraints=[LinearConstraint(cover, 1, 1), *within],
            options={"mip_rel_gap": 0.0},
        )
    if solution.status == 2:  # infeasible
        return None
    if solution.x is None:
        raise StepError(f"HiGHS found no plan: {solution.message}")
    return np.asarray(solution.x > 0.5)


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """HiGHS 1.12 prints a debug line to stdout; C would flush it after the JSON of the command."""
    c_library = ctypes.CDLL(None)
    c_library.fflush(None)
    stdout = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        c_library.fflush(None)
        os.dup2(stdout, 1)
        os.close(stdout)
