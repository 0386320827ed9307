"""Predicted times beside measured ones, and how far times of layers add up at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tasks.contracts import Arm, ConversionPlan, PassTime
from tasks.cost_contracts import CostTable, planned_ratio
from tasks.report.bundle import ReportBundle
from tasks.report.formats import length, number, percent
from tasks.report.measurements import Row, rows

# the part of a time that a metric measures, and its value in milliseconds
PARTS: dict[str, tuple[str, str, Callable[[float], float]]] = {
    "prefill_ms": ("Reading", "prefill_seconds", lambda ms: ms),
    "decode_tokens_per_s": ("A token behind", "decode_seconds_per_token", lambda rate: 1e3 / rate),
}


@dataclass(frozen=True)
class TimeRow:
    """One figure in milliseconds, by arm: predicted, measured, and how far apart."""

    what: str
    arm: Arm
    predicted_ms: float
    measured_ms: float

    @property
    def predicted(self) -> str:
        return f"{number(self.predicted_ms)} ms"

    @property
    def measured(self) -> str:
        return f"{number(self.measured_ms)} ms"

    @property
    def error(self) -> str:
        return percent(self.predicted_ms / self.measured_ms - 1, signed=True)


def time_rows(bundle: ReportBundle) -> list[TimeRow]:
    """Base and candidate at each length that was both timed in layers and measured as a whole."""
    costs = bundle.costs
    if costs is None or costs.batch != 1:  # evaluation reads one row at a time
        return []
    made = []
    for row in rows(bundle.evaluation):
        at = costs.at(row.tokens or 0)
        if row.family in PARTS and at is not None:
            predicted: dict[Arm, PassTime | None] = {
                "base": at.of_model(costs.base_specs),
                "candidate": bundle.predicted_times.get(at.context_tokens),
            }
            for arm, time in predicted.items():
                if time is not None and (value := row.value(arm)):
                    made.append(_row(row, arm, time, value))
    return made


def _row(row: Row, arm: Arm, predicted: PassTime, value: float) -> TimeRow:
    what, part, in_ms = PARTS[row.family]
    words = f"{what} {length(row.tokens or 0)} tokens"
    return TimeRow(words, arm, getattr(predicted, part) * 1e3, in_ms(value))


def planned_times(plan: ConversionPlan) -> str | None:
    """The plan's own prediction in a sentence; None where it has none."""
    ratio = planned_ratio(plan)
    if ratio is None:
        return None
    return (
        "From the measured times of its layers it predicts "
        f"{percent(ratio.prefill)} of the base's time to read them, and "
        f"{percent(ratio.decode)} for each token behind them."
    )


def adding_up(costs: CostTable) -> str:
    """How well times of layers predict a model that has every kind of them in turn, by length."""
    parts = []
    for at in costs.contexts:
        error = [percent(ratio - 1, signed=True) for ratio in at.adding_up]
        tokens = length(at.context_tokens)
        parts.append(f"at {tokens} tokens by {error[0]} to read them, by {error[1]} a token")
    return "; ".join(parts)
