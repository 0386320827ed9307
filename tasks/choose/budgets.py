"""What a plan may cost: limits on sums over its columns."""

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
from layerwright.tasks.choose.time_budgets import Figure, time_uses
from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.errors import InputError

TIMES: dict[str, Figure] = {
    "prefill_seconds_ratio": "prefill_seconds",
    "decode_seconds_ratio": "decode_seconds_per_token",
}
RATIOS = ("kv_bytes_ratio", "parameters_ratio", "memory_ratio", *TIMES)


class Budget(NamedTuple):
    """``uses`` (N,) in shares of the base's whole; a plan's sum and ``fixed`` are <= ``ratio``."""

    field: str
    uses: Vector
    fixed: float
    ratio: float

    @property
    def limit(self) -> Limit:
        return self.uses, self.ratio - self.fixed


class Budgets(Contract):
    """Limits on a plan, at least one of the ratios.

    Attributes:
        kv_bytes_ratio: KV bytes of the plan at the problem's context length, as a share of the
            base's, at most.
        parameters_ratio: parameters of the whole model, as a share of the base's, at most.
        memory_ratio: bytes of weights and of the KV caches of ``batch`` rows at the problem's
            context length together, as a share of the base's, at most.
        batch: of ``memory_ratio``.
        prefill_seconds_ratio: predicted time of reading the problem's context, as a share of the
            base's, at most. Like the next it needs measured times.
        decode_seconds_ratio: predicted time of a token behind that context, likewise.
        keep_layers: at least so many layers stay as they are.
        max_recall_nats: the sum of the columns' recall damages, at most.
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
    def _one_at_least(self) -> Self:
        if all(getattr(self, ratio) is None for ratio in RATIOS):
            raise ValueError(f"at least one of {', '.join(RATIOS)}")
        return self

    @property
    def needs_times(self) -> bool:
        return any(getattr(self, ratio) is not None for ratio in TIMES)

    def ratios(self, problem: Problem, columns: Sequence[Column]) -> list[Budget]:
        """Those that are shares of the base's whole.

        Raises:
            InputError: one on time, without measured times at the problem's context.
        """
        kv = np.array([column.kv_bytes for column in columns], dtype=np.float64)
        base_kv = problem.base_kv_bytes
        found = []
        if self.kv_bytes_ratio is not None:
            found.append(Budget("kv_bytes_ratio", kv / base_kv, 0.0, self.kv_bytes_ratio))
        own = np.array([column.parameters for column in columns], dtype=np.float64)
        other = problem.other_parameters
        total = sum(problem.layer_parameters) + other
        if self.parameters_ratio is not None:
            found.append(
                Budget("parameters_ratio", own / total, other / total, self.parameters_ratio)
            )
        if self.memory_ratio is not None:
            width = problem.profile.geometry.element_bytes
            whole = width * total + self.batch * base_kv
            uses = (width * own + self.batch * kv) / whole
            found.append(Budget("memory_ratio", uses, width * other / whole, self.memory_ratio))
        for field, figure in TIMES.items():
            ratio = getattr(self, field)
            if ratio is not None:
                found.append(Budget(field, *time_uses(problem, columns, field, figure), ratio))
        return found

    def others(self, columns: Sequence[Column]) -> list[Limit]:
        """Limits that are no shares."""
        found: list[Limit] = []
        if self.keep_layers:
            converted = [0 if c.candidate is None else len(c.layers) for c in columns]
            layers = max(column.stop for column in columns)
            found.append((np.array(converted, dtype=np.float64), layers - self.keep_layers))
        if self.max_recall_nats is not None:
            found.append((self._recall(columns), self.max_recall_nats))
        return [*found, *neighbour_limits(columns)]

    @staticmethod
    def _recall(columns: Sequence[Column]) -> Vector:
        return np.array([recall_nats(column.damage) for column in columns])

    def limits(self, problem: Problem, columns: Sequence[Column]) -> list[Limit]:
        """All of them."""
        ratios = [budget.limit for budget in self.ratios(problem, columns)]
        return [*ratios, *self.others(columns)]

    def out_of_reach(self, problem: Problem, columns: Sequence[Column]) -> InputError:
        """The error that names the limit in the way and the best that can be reached."""
        budgets, others = self.ratios(problem, columns), self.others(columns)
        for budget in budgets:
            best = _best(budget, columns, [])
            if best is not None and best > budget.ratio:
                return _unreachable(problem, budget, best, "whatever the damage", budget.field)
        for budget in budgets:
            best = _best(budget, columns, others)
            if best is not None and best > budget.ratio:
                return self._capped(problem, columns, budget, best)
        asked = ", ".join(f"{budget.field} {budget.ratio:g}" for budget in budgets)
        return InputError(
            f"no plan meets the limits together: {asked}, keep_layers {self.keep_layers}",
            where="choose.selector",
            remedy="loosen one of them, or add a strategy that costs less",
        )

    def _capped(
        self, problem: Problem, columns: Sequence[Column], budget: Budget, best: float
    ) -> InputError:
        if self.max_recall_nats is None:
            cause = f"with keep_layers {self.keep_layers}"
            return _unreachable(problem, budget, best, cause, "keep_layers")
        recall = self._recall(columns)
        within = least_cover(recall, columns, [budget.limit])
        assert within is not None  # the budget alone can be met
        cause = (
            f"within max_recall_nats {self.max_recall_nats:g}; at that ratio the least sum of "
            f"recall damages is {recall @ within:.4f} nats"
        )
        return _unreachable(problem, budget, best, cause, "max_recall_nats")


def _best(budget: Budget, columns: Sequence[Column], limits: list[Limit]) -> float | None:
    # in ten-thousandths: the solver's tolerances are absolute
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
        remedy="or add a strategy that keeps less or does less damage",
    )
