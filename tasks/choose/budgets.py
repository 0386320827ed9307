"""The budgets of a plan: linear limits on sums over the chosen columns."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Self

import numpy as np
from pydantic import Field, model_validator

from layerwright.tasks.choose.base import Problem, named
from layerwright.tasks.choose.cover import Column, Limit, Vector, least_cover, recall_nats
from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.errors import InputError
from layerwright.tasks.strategies.base import Strategy

TIMES = {
    "prefill_seconds_ratio": "prefill_seconds",
    "decode_seconds_ratio": "decode_seconds_per_token",
}
RATIOS = ("kv_bytes_ratio", "parameters_ratio", "memory_ratio", *TIMES)


class Budget(NamedTuple):
    """A limit as a share of the base's total: sum of uses (N,) over the plan + fixed <= ratio."""

    field: str  # the recipe's
    uses: Vector
    fixed: float  # the share that every plan uses, outside the layers
    ratio: float

    @property
    def limit(self) -> Limit:
        return self.uses, self.ratio - self.fixed


class Budgets(Contract):
    """Limits on a plan. At least one of the ratios must be set.

    Ratios are to the base, at the problem's context length: the plan's KV bytes, the whole model's
    parameters, the bytes of weights and of the KV caches of ``batch`` rows, and the predicted times
    of a prefill and of a decoded token after it, which need measured times. ``keep_layers`` is the
    smallest number of kept layers. ``max_recall_nats`` is the largest sum of recall damages.
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
        """The limits that are ratios to the base; InputError if one needs a missing time."""
        kv = np.array([column.kv_bytes for column in columns], dtype=np.float64)
        own = np.array([column.parameters for column in columns], dtype=np.float64)
        base_kv, other = problem.base_kv_bytes, problem.other_parameters
        total, width = sum(problem.layer_parameters) + other, problem.profile.geometry.element_bytes
        memory = width * total + self.batch * base_kv
        uses_and_fixed: dict[str, Callable[[], tuple[Vector, float]]] = {
            "kv_bytes_ratio": lambda: (kv / base_kv, 0.0),
            "parameters_ratio": lambda: (own / total, other / total),
            "memory_ratio": lambda: (
                (width * own + self.batch * kv) / memory,
                width * other / memory,
            ),
            **{field: partial(_time_uses, problem, columns, field) for field in TIMES},
        }
        return [
            Budget(field, *uses_and_fixed[field](), ratio)
            for field in RATIOS
            if (ratio := getattr(self, field)) is not None
        ]

    def other_limits(self, columns: Sequence[Column]) -> list[Limit]:
        """The limits that are not ratios: kept layers, recall and neighbours."""
        limits: list[Limit] = []
        if self.keep_layers:
            converted = [0 if c.candidate is None else len(c.layers) for c in columns]
            layers = max(column.stop for column in columns)
            limits.append((np.array(converted, dtype=np.float64), layers - self.keep_layers))
        if self.max_recall_nats is not None:
            limits.append((recalls(columns), self.max_recall_nats))
        return [*limits, *_neighbour_limits(columns)]

    def limits(self, problem: Problem, columns: Sequence[Column]) -> list[Limit]:
        ratios = [budget.limit for budget in self.ratios(problem, columns)]
        return [*ratios, *self.other_limits(columns)]

    def out_of_reach(self, problem: Problem, columns: Sequence[Column]) -> InputError:
        """The error that names the limit that no plan meets, and its reachable minimum."""
        budgets = self.ratios(problem, columns)
        for others in ([], self.other_limits(columns)):
            for budget in budgets:
                # scaled, because the solver's tolerances are absolute
                least = least_cover(budget.uses * 1e4, columns, others)
                best = budget.fixed + (0.0 if least is None else float(budget.uses @ least))
                if least is not None and best > budget.ratio:
                    cause, field = "at any damage", budget.field
                    if others:
                        cause, field = self._cap(columns, budget)
                    return _unreachable(problem, budget, best, cause, field)
        ratios = ", ".join(f"{budget.field} {budget.ratio:g}" for budget in budgets)
        return InputError(
            f"no plan meets all limits together: {ratios}, keep_layers {self.keep_layers}",
            where="choose.selector",
            remedy="loosen a limit, or add a strategy that costs less",
        )

    def _cap(self, columns: Sequence[Column], budget: Budget) -> tuple[str, str]:
        """The limit besides the ratio that makes it unreachable, and its field."""
        if self.max_recall_nats is None:
            return f"with keep_layers {self.keep_layers}", "keep_layers"
        recall = recalls(columns)
        cover = least_cover(recall, columns, [budget.limit])
        assert cover is not None  # a plan meets this budget alone
        cause = (
            f"within max_recall_nats {self.max_recall_nats:g}; at that ratio the least sum of "
            f"recall damages is {recall @ cover:.4f} nats"
        )
        return cause, "max_recall_nats"


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


def recalls(columns: Sequence[Column]) -> Vector:
    """(N,) recall damage of each column."""
    return np.array([recall_nats(column.damage) for column in columns])


def _time_uses(problem: Problem, columns: Sequence[Column], field: str) -> tuple[Vector, float]:
    """The shares of the base's predicted time: of each column (N,), and outside the layers."""
    layers, times = problem.base_time(), problem.times
    if layers is None or times is None:
        raise InputError(
            f"{field} needs measured times at {problem.context_tokens:,} tokens",
            where=f"choose.selector.{field}",
            remedy=f"add `costs: {{context_tokens: [{problem.context_tokens}]}}` to the recipe",
        )
    for column in columns:
        if column.time is None:
            assert column.candidate is not None  # the table always has the base's layers
            raise InputError(
                f"the cost table has no time of {named(column.candidate.spec)}",
                where=f"choose.selector.{field}",
                remedy="remove the strategy, or measure the costs with it",
            )
    outside = getattr(times.outside.time, TIMES[field])
    total = outside + getattr(layers, TIMES[field])
    uses = np.array([getattr(column.time, TIMES[field]) for column in columns])
    return uses / total, outside / total


def _neighbour_limits(columns: Sequence[Column]) -> list[Limit]:
    """For every column c that patches the layer below: x_c <= sum of x_b over allowed columns b.
    Column b is allowed if it ends where c starts, and keeps its feed-forward or merges with c.
    """
    strategies = [c.candidate.strategy if c.candidate else None for c in columns]

    def can_be_below(below: Strategy | None, strategy: Strategy) -> bool:
        keeps = below is None or below.keeps_feed_forward
        return keeps or (below == strategy and strategy.merges)

    limits = []
    for index, (above, strategy) in enumerate(zip(columns, strategies, strict=True)):
        if strategy is not None and strategy.patches_below:
            pairs = zip(columns, strategies, strict=True)
            allowed = [c.stop == above.start and can_be_below(s, strategy) for c, s in pairs]
            uses = -np.array(allowed, dtype=np.float64)
            uses[index] = 1.0
            limits.append((uses, 0.0))
    return limits
