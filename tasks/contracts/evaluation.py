"""Measurements of every arm, as the gate and the report read them."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import field_validator

from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.contracts.references import CheckpointRef, TreeRef

Arm = Literal["base", "candidate", "champion", "control"]
ARMS: tuple[Arm, ...] = ("base", "candidate", "champion", "control")
Aggregate = Literal["mean", "exp_mean"]


class Presentation(Contract):
    """How pages show the measurements whose names begin with one word, as in ``perplexity.docs``.

    Attributes:
        label: what the figure is.
        part: of the page: curves over the context length for ``by_length``, which needs a length
            in the name; a table of its own for ``other``.
        help: the unit or the scale, and which end is better.
        log: on a logarithmic axis.
        reference: the value of a candidate that equals its base, if that is a constant.
    """

    label: str
    part: Literal["quality", "by_length", "overlap", "other"] = "other"
    help: str = ""
    log: bool = False
    reference: float | None = None


class Measurement(Contract):
    """One figure of one arm. ``value`` None means that it could not be measured.

    ``low`` and ``high`` bound its 95 % interval where the metric gives one; ``count`` is the
    number of items (tokens, prompts, repeats) behind it. ``aggregate`` says how the value follows
    from the per-item results, where it does: their weighted mean, or exp of it.
    """

    metric: str
    arm: Arm
    value: float | None
    unit: str
    higher_is_better: bool
    low: float | None = None
    high: float | None = None
    count: int = 0
    detail: str = ""
    aggregate: Aggregate | None = None

    @field_validator("value", "low", "high")
    @classmethod
    def _finite(cls, value: float | None) -> float | None:
        # JSON has no NaN: what is not a number was not measured, and the gate fails on it
        return value if value is not None and math.isfinite(value) else None


class Champion(Contract):
    """The version that the registry's champion alias points at.

    ``checkpoint`` None means that it cannot be measured beside the candidate, for ``reason``.
    """

    version: str
    checkpoint: CheckpointRef | None = None
    reason: str = ""


class EvalReport(Contract):
    """All arms, measured in one run on the same items.

    ``items`` is a tree with every per-item result (tasks/contracts/items.py). ``kernels`` are the
    implementations that ran, by operator; none where all was already measured.
    """

    base_sha256: str
    candidate_sha256: str
    champion: Champion | None = None
    control_sha256: str | None = None
    device: str
    kernels: dict[str, tuple[str, ...]] = {}
    measurements: tuple[Measurement, ...]
    presentation: dict[str, Presentation] = {}  # by the first word of a measurement's name
    items: TreeRef | None = None
    seconds: float = 0.0

    @property
    def arms(self) -> tuple[Arm, ...]:
        """The arms that were measured, base first."""
        measured = {m.arm for m in self.measurements}
        return tuple(arm for arm in ARMS if arm in measured)

    def value(self, metric: str, arm: Arm) -> float | None:
        found = self.find(metric, arm)
        return found.value if found else None

    def find(self, metric: str, arm: Arm) -> Measurement | None:
        return next((m for m in self.measurements if (m.metric, m.arm) == (metric, arm)), None)

    def by_arm(self, arm: Arm) -> dict[str, float | None]:
        return {m.metric: m.value for m in self.measurements if m.arm == arm}


class PlanComparison(Contract):
    """Plans measured side by side on the same tokens, by the name that the survey gives them."""

    base_sha256: str
    device: str
    plans: dict[str, tuple[Measurement, ...]]
    presentation: dict[str, Presentation] = {}
    seconds: float = 0.0

    def values(self, plan: str) -> dict[str, float | None]:
        """The plan's own figures (arm ``candidate``)."""
        return {m.metric: m.value for m in self.plans[plan] if m.arm == "candidate"}
