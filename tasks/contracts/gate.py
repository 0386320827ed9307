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

    A missing measurement cannot be waived.
    """

    metric: str = Field(min_length=1)  # a name or a glob
    author: str = Field(min_length=1)
    reason: str = Field(min_length=1)
    expires: date  # the last valid day (UTC)


class Check(Contract):
    """One rule applied to one metric."""

    metric: str
    rule: str
    compare: Comparing  # copied from the rule, as arm and slice
    value: float | None  # the figure that is compared with the limit
    limit: float
    is_floor: bool  # the limit is a minimum; otherwise it is a maximum
    margin: float | None  # from the limit to the judged figure; negative if outside
    passed: bool
    severity: Severity
    reason: str = ""
    arm: Compared = "base"
    slice: str | None = None
    bound: float | None = None  # one-sided confidence bound of ``value`` towards the limit
    p_value: float | None = None  # of the limit holding; adjusted over all tests (Holm)
    items: int = 0  # number of items behind the bound and the p-value
    detectable: float | None = None  # the smallest change that so many items show with power 80 %
    inconclusive: bool = False  # failed for too little evidence, not for a significant loss
    waiver: Waiver | None = None  # a failed check under it does not reject

    @property
    def rejects(self) -> bool:
        return not self.passed and self.severity == "fail" and self.waiver is None


class GateDecision(Contract):
    """The gate's verdict on one candidate."""

    accepted: bool  # no check rejects, and one of severity ``fail`` passed without a waiver
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
