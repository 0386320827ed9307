"""What the gate is told and what it says: policy, rules and waivers; checks and the decision."""

from __future__ import annotations

from datetime import date
from typing import Literal

from pydantic import Field

from layerwright.tasks.contracts.base import Contract

Severity = Literal["fail", "warn"]
Tier = Literal["lossless", "standard", "aggressive"]
Compared = Literal["base", "champion", "control"]
Comparing = Literal["value", "ratio", "difference", "p_value"]


class Waiver(Contract):
    """A loss that a person answers for: checks of ``metric`` may fail until the day is over (UTC).

    What was not measured cannot be waived.
    """

    metric: str = Field(min_length=1)
    author: str = Field(min_length=1)
    reason: str = Field(min_length=1)
    expires: date


class Check(Contract):
    """One rule applied to one metric.

    Attributes:
        compare, arm, slice: the rule's.
        value: the figure that was compared; ``bound`` is its one-sided bound towards the limit.
        is_floor: the limit is the least that passes, not the most.
        margin: how far the judged one of the two is inside the limit.
        p_value: of the hypothesis that the limit holds, Holm-adjusted over the decision.
        items: how many the bound and the p-value rest on.
        detectable: the smallest change of ``value`` that so many items would show, 4 times of 5.
        inconclusive: failed because the items do not tell, not because a loss was shown.
        waiver: failed, and forgiven by this.
    """

    metric: str
    rule: str
    compare: Comparing
    value: float | None
    limit: float
    is_floor: bool
    margin: float | None
    passed: bool
    severity: Severity
    reason: str = ""
    arm: Compared = "base"
    slice: str | None = None
    bound: float | None = None
    p_value: float | None = None
    items: int = 0
    detectable: float | None = None
    inconclusive: bool = False
    waiver: Waiver | None = None

    @property
    def rejects(self) -> bool:
        return not self.passed and self.severity == "fail" and self.waiver is None


class GateDecision(Contract):
    """Accepted only if no check rejects and at least one of severity ``fail`` passed by itself."""

    accepted: bool
    checks: tuple[Check, ...]
    candidate_sha256: str
    decided_at: str
    expires_at: str
    tier: Tier | None = None
    significance: float = 0.05
    waivers: tuple[Waiver, ...] = ()

    @property
    def rejecting(self) -> tuple[Check, ...]:
        """The checks that stand against the candidate."""
        return tuple(check for check in self.checks if check.rejects)

    @property
    def shown_worse(self) -> bool:
        """A check failed, other than for want of items."""
        return any(not check.inconclusive for check in self.rejecting)

    def failed(self) -> tuple[str, ...]:
        """What rejected the candidate, check by check."""
        return tuple(f"{check.metric}: {check.reason}" for check in self.rejecting)
