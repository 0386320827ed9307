"""A registered version measured again: what is watched, what was found, and how it went before."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tasks.contracts import Contract, EvalReport, ModelRef, Number
from tasks.gate_contracts import GateDecision


class WatchRule(Contract):
    """The band that the ratio of a version's figure to another must stay in.

    Attributes:
        metric: a name or a glob, which must match at least one measurement.
        against: the base or the champion in the same run, or the figure that the version was
            registered with.
    """

    metric: str = Field(min_length=1)
    against: Literal["base", "champion", "registered"] = "base"
    min_ratio: Number | None = None
    max_ratio: Number | None = None

    @property
    def reference(self) -> str:
        """What the ratio is to, in words."""
        return "registered figure" if self.against == "registered" else f"{self.against}'s figure"

    @model_validator(mode="after")
    def _bounded(self) -> WatchRule:
        if self.min_ratio is None and self.max_ratio is None:
            raise ValueError("a min_ratio, a max_ratio, or both")
        return self


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


class RequalificationBundle(Contract):
    """What the page shows of a requalification; ``trend`` ends with it."""

    run_id: str
    recipe_name: str
    recipe_yaml: str
    started_at: str
    finished_at: str
    registered_name: str
    version: str
    model: ModelRef
    evaluation: EvalReport
    gate: GateDecision
    watch: tuple[WatchRule, ...]
    alarms: tuple[Alarm, ...]
    trend: tuple[TrendPoint, ...]
    seconds: dict[str, float] = {}
    cache_hits: tuple[str, ...] = ()
    environment: dict[str, str] = {}
