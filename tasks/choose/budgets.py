"""The budgets of a plan: linear limits on sums over the chosen columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
from pydantic import Field, model_validator

from layerwright.tasks.choose.base import Problem
from layerwright.tasks.choose.columns import Column, recall_nats
from layerwright.tasks.choose.cover import Limit, Vector, least_cover
from layerwright.tasks.choose.neighbours import neighbour_limits
from layerwright.tasks.choose.time_budgets import TimeField, time_uses
from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.errors import InputError

TIMES: dict[str, TimeField] = {
    "prefill_seconds_ratio": "prefill_seconds",
    "decode_seconds_ratio": "decode_seconds_per_token",
}
RATIOS = ("kv_bytes_ratio", "parameters_ratio", "memory_ratio", *TIMES)


class Budget(NamedTuple):
    """A limit as a share of the base's total: sum of ``uses`` over the plan + fixed <= ratio.

    Attributes:
        field: the recipe field of the limit.
        uses: (N,) the share of the base's total that each column uses.
        fixed: the share that every plan uses, outside the layers.
        ratio: the largest allowed share.
    """

    field: str
    uses: Vector
    fixed: float
    ratio: float

    @property
    def limit(self) -> Limit:
        return self.uses, self.ratio - self.fixed


class Budgets(Contract):
    """Limits on a plan. At least one of the ratios must be set.

    Attributes:
        kv_bytes_ratio: largest KV bytes at the problem's context length, relative to the base.
        parameters_ratio: largest parameter count of the whole model, relative to the base.
        memory_ratio: largest sum of the bytes of the weights and of the KV caches of ``batch`` rows
            at the problem's context length, relative to the base.
        batch: number of rows for ``memory_ratio``.
        prefill_seconds_ratio: largest predicted prefill time of the problem's context, relative to
            the base; needs measured times.
        decode_seconds_ratio: largest predicted decode time per token after that context, relative
            to the base; needs measured times.
        keep_layers: smallest number of kept layers.
        max_recall_nats: largest sum of the recall damages of the columns.
    """

    kv_bytes_ratio: float | None = Field(default=None, gt=0, le=1)
    parameters_ratio: float | None = Field(default=None, gt=0, le=1)
    memory_ratio: float | None = Field(default=None, gt=0, le=1)
    batch: int = Field(default=1, gt=0)
    prefill_seconds_ratio: float | None = Field(default=None, gt=0, le=1)
    decode_seconds_ratio: float | None = Field(default=None, gt=0, le=1)
    keep_layers: int = Field(default=0, ge=0)
    max_recall_nats: float | None = Field(default=None, ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _has_a_ratio(self) -> Self:
        if all(getattr(self, ratio) is None for ratio in RATIOS):
            raise ValueError(f"set at least one of {', '.join(RATIOS)}")
        return self

    @property
    def needs_times(self) -> bool:
        return any(getattr(self, ratio) is not None for ratio in TIMES)

    def ratios(self, problem: Problem, columns: Sequence[Column]) -> list[Budget]:
        """Return the limits that are ratios to the base.

        Raises:
            InputError: a limit on time is set, but there are no measured times at the problem's
                context length.
        """
        kv = np.array([column.kv_bytes for column in columns], dtype=np.float64)
        base_kv = problem.base_kv_bytes
        budgets = []
        if self.kv_bytes_ratio is not None:
            budgets.append(Budget("kv_bytes_ratio", kv / base_kv, 0.0, self.kv_bytes_ratio))
        own = np.array([column.parameters for column in columns], dtype=np.float64)
        other = problem.other_parameters
        total = sum(problem.layer_parameters) + other
        if self.parameters_ratio is not None:
            budgets.append(
                Budget("parameters_ratio", own / total, other / total, self.parameters_ratio)
            )
        if self.memory_ratio is not None:
            width = problem.profile.geometry.element_bytes
            base_bytes = width * total + self.batch * base_kv
            uses = (width * own + self.batch * kv) / base_bytes
            fixed = width * other / base_bytes
            budgets.append(Budget("memory_ratio", uses, fixed, self.memory_ratio))
        for field, time_field in TIMES.items():
            ratio = getattr(self, field)
            if ratio is not None:
                uses, fixed = time_uses(problem, columns, field, time_field)
                budgets.append(Budget(field, uses, fixed, ratio))
        return budgets

    def other_limits(self, columns: Sequence[Column]) -> list[Limit]:
        """Return the limits that are not ratios: kept layers, recall and neighbours."""
        limits: list[Limit] = []
        if self.keep_layers:
            converted = [0 if c.candidate is None else len(c.layers) for c in columns]
            layers = max(column.stop for column in columns)
            limits.append((np.array(converted, dtype=np.float64), layers - self.keep_layers))
        if self.max_recall_nats is not None:
            limits.append((self._recall(columns), self.max_recall_nats))
        return [*limits, *neighbour_limits(columns)]

    @staticmethod
    def _recall(columns: Sequence[Column]) -> Vector:
        return np.array([recall_nats(column.damage) for column in columns])

    def limits(self, problem: Problem, columns: Sequence[Column]) -> list[Limit]:
        """Return all limits."""
        ratios = [budget.limit for budget in self.ratios(problem, columns)]
        return [*ratios, *self.other_limits(columns)]

    def out_of_reach(self, problem: Problem, columns: Sequence[Column]) -> InputError:
        """Return the error that names the limit that no plan meets, and its reachable minimum."""
        budgets, others = self.ratios(problem, columns), self.other_limits(columns)
        for budget in budgets:
            best = _best(budget, columns, [])
            if best is not None and best > budget.ratio:
                return _unreachable(problem, budget, best, "at any damage", budget.field)
        for budget in budgets:
            best = _best(budget, columns, others)
            if best is not None and best > budget.ratio:
                return self._capped(problem, columns, budget, best)
        ratios = ", ".join(f"{budget.field} {budget.ratio:g}" for budget in budgets)
        return InputError(
            f"no plan meets all limits together: {ratios}, keep_layers {self.keep_layers}",
            where="choose.selector",
            remedy="loosen a limit, or add a strategy that costs less",
        )

    def _capped(
        self, problem: Problem, columns: Sequence[Column], budget: Budget, best: float
    ) -> InputError:
        if self.max_recall_nats is None:
            cause = f"with keep_layers {self.keep_layers}"
            return _unreachable(problem, budget, best, cause, "keep_layers")
        recall = self._recall(columns)
        cover = least_cover(recall, columns, [budget.limit])
        assert cover is not None  # a plan meets this budget alone
        cause = (
            f"within max_recall_nats {self.max_recall_nats:g}; at that ratio the least sum of "
            f"recall damages is {recall @ cover:.4f} nats"
        )
        return _unreachable(problem, budget, best, cause, "max_recall_nats")


def _best(budget: Budget, columns: Sequence[Column], limits: list[Limit]) -> float | None:
    # scaled, because the solver's tolerances are absolute
    least = least_cover(budget.uses * 1e4, columns, limits)
    return None if least is None else float(budget.uses @ least) + budget.fixed


def _unreachable(
    problem: Problem, budget: Budget, best: float, cause: str, field: str
) -> InputError:
    at = f" at {problem.context_tokens:,} tokens" if budget.field != "parameters_ratio" else ""
    return InputError(
        f"{budget.field} {budget.ratio:g} is out of reach{at}: the least is {best:.4f} {cause}",
        where=f"choose.selector.{field}",
        expected=f"{budget.field} of at least {math.ceil(best * 1e4) / 1e4:g}",
        remedy="raise the ratio, or add a strategy that costs less or does less damage",
    )
