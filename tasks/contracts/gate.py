"""The gate's decision, its checks, and the waivers that a check can fall under."""

from datetime import date
from typing import Literal

from pydantic import Field

from layerwright.tasks.contracts.base import Contract

Severity = Literal["fail", "warn"]
Tier = Literal["lossless", "standard", "aggressive"]
Compared = Literal["base", "champion", "control"]
Comparing = Literal["value", "ratio", "difference", "p_value"]


class Waiver(Contract):
    """A person accepts a loss: failed checks of ``metric`` do not reject the candidate.

    ``metric`` is a name or a glob. ``expires`` is the last valid day (UTC). A missing measurement
    cannot be waived.
    """

    metric: str = Field(min_length=1)
    author: str = Field(min_length=1)
    reason: str = Field(min_length=1)
    expires: date


class Check(Contract):
    """One rule applied to one metric."""

    metric: str
    rule: str
    # compare, arm, slice: copied from the rule
    compare: Comparing
    value: float | None  # the figure that is compared with the limit
    limit: float
    is_floor: bool  # the limit is a minimum; otherwise it is a maximum
    # distance from the limit of ``value`` or ``bound``, whichever the rule judges; negative if it
    # is outside
    margin: float | None
    passed: bool
    severity: Severity
    reason: str = ""
    arm: Compared = "base"
    slice: str | None = None
    # the one-sided confidence bound of ``value`` on the side of the limit
    bound: float | None = None
    # the null hypothesis is that the limit holds. Adjusted by Holm's method over all tests of the
    # decision.
    p_value: float | None = None
    items: int = 0  # number of items behind the bound and the p-value
    # the smallest change of ``value`` that this number of items shows with a power of 80 %
    detectable: float | None = None
    # the check failed because there is too little evidence, not because a loss is significant
    inconclusive: bool = False
    waiver: Waiver | None = None  # the waiver under which a failed check does not reject

    @property
    def rejects(self) -> bool:
        return not self.passed and self.severity == "fail" and self.waiver is None


class GateDecision(Contract):
    """The gate's verdict on one candidate.

    It is accepted if no check rejects and at least one check of severity ``fail`` passed without a
    waiver.
    """

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
        """The checks that reject the candidate."""
        return tuple(check for check in self.checks if check.rejects)

    @property
    def shown_worse(self) -> bool:
        """At least one check rejects because of a loss, not for lack of evidence."""
        return any(not check.inconclusive for check in self.rejecting)

    def failed(self) -> tuple[str, ...]:
        """Metric and reason of each check that rejects."""
        return tuple(f"{check.metric}: {check.reason}" for check in self.rejecting)
