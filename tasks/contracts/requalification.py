"""Requalification: a registered version, measured again, with alarms and the trend over time."""

from typing import Literal

from layerwright.tasks.contracts.base import Contract


class Alarm(Contract):
    """A figure that is outside its band, or that could not be compared with it."""

    metric: str
    reference: str
    value: float | None
    ratio: float | None
    min_ratio: float | None
    max_ratio: float | None
    reason: str


class TrendPoint(Contract):
    """One past requalification. ``values``: the version's figures, by metric."""

    at: str
    run_id: str
    decision: str
    alarms: int
    values: dict[str, float]


class Requalification(Contract):
    """The result of a requalify run. ``--json`` prints it as the last line."""

    run_id: str
    model: str
    version: str
    decision: Literal["accepted", "rejected"]
    failed_checks: tuple[str, ...]
    alarms: tuple[Alarm, ...]
    metrics: dict[str, dict[str, float | None]]
    trend: tuple[TrendPoint, ...]
    seconds: dict[str, float]
    cache_hits: tuple[str, ...]
    mlflow_run: str
    report: str
