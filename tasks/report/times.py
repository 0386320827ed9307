"""Predicted times beside measured ones, and how far times of layers add up at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from layerwright.tasks.contracts.costs import CostTable, time_ratio
from layerwright.tasks.contracts.evaluation import Arm
from layerwright.tasks.contracts.plan import PassTime
from layerwright.tasks.report.bundle import ReportBundle
from layerwright.tasks.report.formats import length, number, percent
from layerwright.tasks.report.measurements import Row, rows

# the part of a time that a metric measures, and its value in milliseconds for rows at once
PARTS: dict[str, tuple[str, str, Callable[[float, int], float]]] = {
    "prefill_ms": ("Reading", "prefill_seconds", lambda ms, rows: ms),
    "decode_tokens_per_s": (
        "A token behind",
        "decode_seconds_per_token",
        lambda rate, rows: 1e3 * rows / rate,
    ),
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
    if costs is None:
        return []
    made = []
    for row in rows(bundle.evaluation):
        if row.family in PARTS and row.tokens is not None and row.batch == costs.batch:
            predicted: dict[Arm, PassTime | None] = {
                "base": _base_time(bundle, row.tokens),
                "candidate": bundle.predicted_times.get(row.tokens),
            }
            for arm, time in predicted.items():
                if time is not None and (value := row.value(arm)):
                    made.append(_row(row, arm, time, value))
    return made


def _row(row: Row, arm: Arm, predicted: PassTime, value: float) -> TimeRow:
    what, part, in_ms = PARTS[row.family]
    words = f"{what} {length(row.tokens or 0)} tokens"
    return TimeRow(words, arm, getattr(predicted, part) * 1e3, in_ms(value, row.batch))


def planned_times(bundle: ReportBundle) -> str | None:
    """The prediction at the plan's own length in a sentence; None where there is none."""
    tokens = bundle.plan.context_tokens
    mine, base = bundle.predicted_times.get(tokens), _base_time(bundle, tokens)
    if mine is None or base is None:
        return None
    ratio = time_ratio(mine, base)
    return (
        "From the measured times of its layers it is predicted to take "
        f"{percent(ratio.prefill)} of the base's time to read them, and "
        f"{percent(ratio.decode)} for each token behind them."
    )


def _base_time(bundle: ReportBundle, tokens: int) -> PassTime | None:
    at = bundle.costs.at(tokens) if bundle.costs else None
    return at.of_model(bundle.costs.base_specs) if bundle.costs and at else None


def adding_up(costs: CostTable) -> str:
    """How far the times of layers miss a model that has every kind of them in turn, by length."""
    parts = []
    for at in costs.contexts:
        prefill, decode = (percent(ratio - 1, signed=True) for ratio in at.adding_up)
        parts.append(f"{prefill} prefill and {decode} a token at {length(at.context_tokens)}")
    return "; ".join(parts)
