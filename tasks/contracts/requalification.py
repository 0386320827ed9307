"""A registered version measured again: what is watched, what was found, and how it went before."""

from __future__ import annotations

from typing import Literal

from layerwright.tasks.contracts.base import Contract


class Alarm(Contract):
    """A figure that left its band, or could not be told to be inside it."""

    metric: str
    reference: str
    value: float | None
    ratio: float | None
    min_ratio: float | None
    max_ratio: float | None
    reason: str


class TrendPoint(Contract):
    """One requalification: its figures of the version itself, by metric."""

    at: str
    run_id: str
    decision: str
    alarms: int
    values: dict[str, float]


class Requalification(Contract):
    """The result of a requalify run, and the last line that ``--json`` prints."""

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
