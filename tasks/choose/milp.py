"""The plan of least measured damage under a KV-byte budget, by integer programming (HiGHS)."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from tasks.choose.base import Candidate, Problem, Selector, named
from tasks.contracts import Damage, LayerProfile, PlanItem
from tasks.errors import InputError, StepError

Vector = NDArray[np.float64]
Limit = tuple[Vector, float]  # what one unit of each option uses, and how much there is

MICRONATS = 1e6  # objective's unit: HiGHS closes gaps to 1e-6 of it, far below any measured damage


@dataclass(frozen=True)
class Option:
    """One thing that one layer can become (``candidate`` None: it is kept), and what it costs."""

    layer: LayerProfile
    candidate: Candidate | None
    damage: Damage | None
    kv_bytes: int

    def cost(self, recall_weight: float) -> float:
        """Weighted damage in nats. Gains are noise and count as nothing, each part by itself."""
        if self.damage is None:
            return 0.0
        return max(self.damage.language_nats, 0.0) + recall_weight * self.recall_nats

    def signed(self, recall_weight: float) -> float:
        """The same with gains counted, to decide between options that cost the same."""
        d = self.damage
        return d.language_nats + recall_weight * d.recall_nats if d else 0.0

    @property
    def recall_nats(self) -> float:
        return max(self.damage.recall_nats, 0.0) if self.damage else 0.0


class Milp(Selector):
    """Minimise the sum of the layers' damages; every layer becomes exactly one thing.

        min  sum_i x_i (max(language_i, 0) + recall_weight max(recall_i, 0))
        s.t. sum of x_i over the options of a layer = 1, for each layer (exact cover)
             sum_i x_i kv_bytes_i <= kv_bytes_ratio * base
             sum_i x_i max(recall_i, 0) <= max_recall_nats
             x binary

    A negative damage is noise of the measurement: unclipped, its sum would pay for real damage
    elsewhere. Ties are decided by a millionth of a nat per converted layer (what need not be
    converted is kept), then for the smaller unclipped damage, fewer KV bytes, the lower layer.

    Attributes:
        kv_bytes_ratio: KV bytes of the plan at the problem's context length, as a share of the
            base's, at most.
        recall_weight: nats of language damage that one nat of recall damage is worth.
        max_recall_nats: the sum of the layers' recall damages, at most.
    """

    name: ClassVar[str] = "milp"

    kv_bytes_ratio: float = Field(gt=0, le=1)
    recall_weight: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    max_recall_nats: float | None = Field(default=None, ge=0, allow_inf_nan=False)

    def select(self, problem: Problem) -> tuple[PlanItem, ...]:
        options = _options(problem)
        chosen = self._solve(problem, options)
        return tuple(self._item(problem, option, options) for option in chosen)

    def _solve(self, problem: Problem, options: list[Option]) -> list[Option]:
        """The chosen option of each layer, in order."""
        kv = _kv_tokens(problem, options)
        limits = [(kv, self.kv_bytes_ratio * _base_tokens(problem)), *self._recall_limit(options)]
        cost = np.array([o.cost(self.recall_weight) for o in options]) * MICRONATS
        cost += self._tie_breaks(options)
        picked = _least(cost, options, limits)
        if picked is None:
            raise self._out_of_reach(problem, options)
        return [o for o, x in zip(options, picked, strict=True) if x]

    def _recall_limit(self, options: list[Option]) -> list[Limit]:
        if self.max_recall_nats is None:
            return []
        return [(np.array([o.recall_nats for o in options]), self.max_recall_nats)]

    def _tie_breaks(self, options: list[Option]) -> Vector:
        """(N,) micronats: nothing for what is kept, one and a little more for what is not."""
        keys = [
            (option.signed(self.recall_weight), option.kv_bytes, index)
            for index, option in enumerate(options)
            if option.candidate is not None
        ]
        extra = np.zeros(len(options))
        for rank, (_, _, index) in enumerate(sorted(keys)):
            extra[index] = 1 + 0.01 * rank / len(keys)
        return extra

    def _out_of_reach(self, problem: Problem, options: list[Option]) -> InputError:
        """The error that names the limit in the way and the best that can be reached."""
        kv, base = _kv_tokens(problem, options), _base_tokens(problem)
        least = _least(kv, options, [])
        assert least is not None  # without limits there is always a plan
        best, cause, field = float(kv @ least) / base, "whatever the damage", "kv_bytes_ratio"
        if best <= self.kv_bytes_ratio:
            ((recall, cap),) = self._recall_limit(options)
            within_cap = _least(kv, options, [(recall, cap)])
            within_budget = _least(recall, options, [(kv, self.kv_bytes_ratio * base)])
            assert within_cap is not None  # keeping every layer costs no recall
            assert within_budget is not None  # just shown by `best`
            best, field = float(kv @ within_cap) / base, "max_recall_nats"
            cause = (
                f"within max_recall_nats {cap:g}; at that ratio the least sum of recall damages "
                f"is {recall @ within_budget:.4f} nats"
            )
        return InputError(
            f"kv_bytes_ratio {self.kv_bytes_ratio:g} is out of reach at "
            f"{problem.context_tokens:,} tokens: the least is {best:.4f} {cause}",
            where=f"choose.selector.{field}",
            expected=f"kv_bytes_ratio of at least {math.ceil(best * 1e4) / 1e4:g}",
            remedy="or add a strategy that keeps fewer bytes or does less damage",
        )

    def _item(self, problem: Problem, option: Option, options: list[Option]) -> PlanItem:
        if option.candidate is not None and option.damage is not None:
            reason = f"{_figures(option.damage)}; {problem.saving(option.layer, option.candidate)}"
            return problem.converted(option.layer, option.candidate, reason)
        others = [o for o in options if o.layer is option.layer and o.candidate is not None]
        best = min(others, key=lambda o: o.cost(self.recall_weight), default=None)
        if best is None or best.candidate is None or best.damage is None:
            return problem.kept(option.layer, "kept: there is nothing else it can become")
        return problem.kept(
            option.layer,
            f"kept: as {named(best.candidate.spec)} {_figures(best.damage)}, "
            f"and it {problem.saving(best.layer, best.candidate)}",
        )


def _options(problem: Problem) -> list[Option]:
    return [
        option
        for layer in problem.layers
        for option in (
            Option(layer, None, None, problem.kept_kv_bytes(layer)),
            *(
                Option(layer, c, problem.damage(layer, c), c.layers[layer.layer].kv_bytes)
                for c in problem.candidates
                if problem.possible(layer, c)
            ),
        )
    ]


def _kv_tokens(problem: Problem, options: list[Option]) -> Vector:
    """(N,) KV bytes of each option, in tokens of a full layer: HiGHS is exact to 1e-6 of one."""
    return np.array([o.kv_bytes for o in options]) / problem.profile.geometry.bytes_per_token


def _base_tokens(problem: Problem) -> float:
    return problem.base_kv_bytes / problem.profile.geometry.bytes_per_token


def _least(cost: Vector, options: list[Option], limits: list[Limit]) -> NDArray[np.bool_] | None:
    """The exact cover of least cost within the limits as a mask (N,), or None if there is none."""
    layers = sorted({o.layer.layer for o in options})
    rows = [layers.index(o.layer.layer) for o in options]
    shape = (len(layers), len(options))
    cover = csr_array((np.ones(len(options)), (rows, np.arange(len(options)))), shape=shape)
    rows_of_limits = [LinearConstraint(uses[None, :], -np.inf, limit) for uses, limit in limits]
    with _stdout_to_stderr():
        solution = milp(
            cost,
            integrality=np.ones(len(options)),
            bounds=Bounds(0, 1),
            constraints=[LinearConstraint(cover, 1, 1), *rows_of_limits],
            options={"mip_rel_gap": 0.0},
        )
    if solution.status == 2:  # infeasible
        return None
    if solution.x is None:
        raise StepError(f"HiGHS found no plan: {solution.message}")
    return np.asarray(solution.x > 0.5)


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """HiGHS 1.12 prints a line of its debugging to C's stdout, which is ours to keep clean.

    C's buffer is written out when the process ends, behind the JSON that must be the last line.
    """
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


def _figures(damage: Damage) -> str:
    return f"damage {damage.language_nats:.4f} nats language, {damage.recall_nats:.4f} nats recall"
