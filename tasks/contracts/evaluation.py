"""The evaluation: measurements of every arm, which the gate and the report read."""

import math
from typing import Literal

from pydantic import field_validator

from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.contracts.references import CheckpointRef, TreeRef

Arm = Literal["base", "candidate", "champion", "control"]
ARMS: tuple[Arm, ...] = ("base", "candidate", "champion", "control")
Aggregate = Literal["mean", "exp_mean"]


class Presentation(Contract):
    """How pages show a family of measurements: all whose names start with the same word."""

    label: str  # the name of the figure
    # its section; ``by_length`` draws curves over the context length in the name
    part: Literal["quality", "by_length", "overlap", "other"] = "other"
    help: str = ""  # the unit or the scale, and which direction is better
    log: bool = False  # logarithmic axis
    reference: float | None = None  # the value of an unchanged model, if it is a constant


class Measurement(Contract):
    """One metric's value in one arm."""

    metric: str
    arm: Arm
    value: float | None  # None if it could not be measured; ``detail`` then says why
    unit: str
    higher_is_better: bool
    low: float | None = None  # to `high`: the 95 % confidence interval
    high: float | None = None
    count: int = 0  # number of items (tokens, prompts, repeats) behind the value
    detail: str = ""
    # of the per-item results (weighted); None if they do not give it
    aggregate: Aggregate | None = None

    @field_validator("value", "low", "high")
    @classmethod
    def _finite(cls, value: float | None) -> float | None:
        # JSON has no NaN; a missing value fails the gate
        return value if value is not None and math.isfinite(value) else None


class Champion(Contract):
    """The version that the registry's champion alias points at."""

    version: str
    checkpoint: CheckpointRef | None = None  # None if it cannot be measured with the candidate
    reason: str = ""  # why it cannot


class EvalReport(Contract):
    """All arms, measured in one run on the same items."""

    base_sha256: str
    candidate_sha256: str
    champion: Champion | None = None
    control_sha256: str | None = None
    device: str
    kernels: dict[str, tuple[str, ...]] = {}  # those that ran, by operator; empty if all was cached
    measurements: tuple[Measurement, ...]
    presentation: dict[str, Presentation] = {}  # by the first word of a measurement's name
    items: TreeRef | None = None  # the tree with every per-item result (tasks/contracts/items.py)
    seconds: float = 0.0

    @property
    def arms(self) -> tuple[Arm, ...]:
        """The arms that were measured, base first."""
        measured = {m.arm for m in self.measurements}
        return tuple(arm for arm in ARMS if arm in measured)

    def value(self, metric: str, arm: Arm) -> float | None:
        measurement = self.find(metric, arm)
        return measurement.value if measurement else None

    def find(self, metric: str, arm: Arm) -> Measurement | None:
        return next((m for m in self.measurements if (m.metric, m.arm) == (metric, arm)), None)

    def by_arm(self, arm: Arm) -> dict[str, float | None]:
        return {m.metric: m.value for m in self.measurements if m.arm == arm}


class PlanComparison(Contract):
    """A survey's plans, measured on the same tokens. ``plans`` is keyed by plan name."""

    base_sha256: str
    device: str
    plans: dict[str, tuple[Measurement, ...]]
    presentation: dict[str, Presentation] = {}
    seconds: float = 0.0

    def values(self, plan: str) -> dict[str, float | None]:
        """The measurements of the plan's model (arm ``candidate``), by metric."""
        return {m.metric: m.value for m in self.plans[plan] if m.arm == "candidate"}
