"""Compare predicted times with measured ones, and show how well layer times add up."""

from collections.abc import Callable
from typing import NamedTuple

from layerwright.tasks.contracts.costs import CostTable, time_ratio
from layerwright.tasks.contracts.evaluation import Arm
from layerwright.tasks.contracts.plan import PassTime
from layerwright.tasks.report.bundle import ReportBundle
from layerwright.tasks.report.formats import length, number, percent
from layerwright.tasks.report.measurements import rows

# by metric: its name on the page, the field of PassTime, and (value, rows) -> milliseconds
PARTS: dict[str, tuple[str, str, Callable[[float, int], float]]] = {
    "prefill_ms": ("Prefill of", "prefill_seconds", lambda ms, rows: ms),
    "decode_tokens_per_s": (
        "One new token after",
        "decode_seconds_per_token",
        lambda rate, rows: 1e3 * rows / rate,
    ),
}


class TimeRow(NamedTuple):
    """One time of one arm, predicted and measured, in milliseconds."""

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
    """Base and candidate at each length that is in the cost table and in the evaluation."""
    costs = bundle.costs
    if costs is None:
        return []
    times = []
    for row in rows(bundle.evaluation):
        if row.family in PARTS and row.tokens is not None and row.batch == costs.batch:
            predicted: dict[Arm, PassTime | None] = {
                "base": _base_time(bundle, row.tokens),
                "candidate": bundle.predicted_times.get(row.tokens),
            }
            for arm, time in predicted.items():
                if time is not None and (value := row.value(arm)):
                    what, part, in_ms = PARTS[row.family]
                    name = f"{what} {length(row.tokens)} tokens"
                    measured = in_ms(value, row.batch)
                    times.append(TimeRow(name, arm, getattr(time, part) * 1e3, measured))
    return times


def planned_times(bundle: ReportBundle) -> str | None:
    """A sentence on the predicted times at the plan's context length; None without a prediction."""
    tokens = bundle.plan.context_tokens
    planned, base = bundle.predicted_times.get(tokens), _base_time(bundle, tokens)
    if planned is None or base is None:
        return None
    ratio = time_ratio(planned, base)
    return (
        "From the measured times of single layers, the predicted prefill time is "
        f"{percent(ratio.prefill)} of the base's, and the predicted time per new token "
        f"{percent(ratio.decode)}."
    )


def _base_time(bundle: ReportBundle, tokens: int) -> PassTime | None:
    at = bundle.costs.at(tokens) if bundle.costs else None
    return at.of_model(bundle.costs.base_specs) if bundle.costs and at else None


def adding_up(costs: CostTable) -> str:
    """The error of the prediction for the mixed model of the cost table, by context length."""
    parts = []
    for at in costs.contexts:
        prefill, decode = (percent(ratio - 1, signed=True) for ratio in at.adding_up)
        tokens = length(at.context_tokens)
        parts.append(f"{prefill} for prefill and {decode} per new token at {tokens} tokens")
    return "; ".join(parts)
