"""What the gate is told and what it says: policy, rules and waivers; checks and the decision."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import Field, model_validator

from tasks.contracts import Contract, Number

Severity = Literal["fail", "warn"]
Tier = Literal["lossless", "standard", "aggressive"]
Compared = Literal["base", "champion", "control"]
Comparing = Literal["value", "ratio", "difference", "p_value"]


class GateRule(Contract):
    """One threshold.

    Attributes:
        metric: a name or a glob (``perplexity.*``) that must match at least one measurement.
        arm: which arm the candidate is compared with.
        compare: the candidate's value, its ratio to that arm's, its difference from it; or the
            probability that a loss as large comes by chance (``p_value``), over the family of all
            tests of the decision (Holm).
        min, max: the limit, exactly one of them.
        on: what must be inside the limit, the ``value`` or the one-sided ``bound`` of its
            interval. A bound needs per-item results; where the items leave open on which side of
            the limit the truth lies, the check is inconclusive, and fails.
        across: ``each`` metric that matches by itself, or the ``mean`` over them.
        slice: a glob over the items' slices (``positions 512-*``); all items if not given.
    """

    metric: str = Field(min_length=1)
    arm: Compared = "base"
    compare: Comparing = "ratio"
    min: Number | None = None
    max: Number | None = None
    on: Literal["value", "bound"] = "value"
    across: Literal["each", "mean"] = "each"
    slice: str | None = Field(default=None, min_length=1)
    severity: Severity = "fail"

    @model_validator(mode="after")
    def _makes_sense(self) -> GateRule:
        if (self.min is None) == (self.max is None):
            raise ValueError("exactly one of min and max")
        if self.compare == "value" and self.arm != "base":
            raise ValueError(f"compare ratio, difference or p_value: a value needs no {self.arm}")
        if self.compare == "p_value" and (self.max is not None or self.on == "bound"):
            raise ValueError("a min on the value: a p_value has no bound and no upper limit")
        if self.across == "mean" and self.compare not in ("ratio", "difference"):
            raise ValueError(f"compare ratio or difference across a mean, not {self.compare}")
        return self

    @property
    def limit(self) -> float:
        limit = self.min if self.min is not None else self.max
        assert limit is not None  # exactly one of them is given
        return limit

    @property
    def is_floor(self) -> bool:
        return self.min is not None


class Waiver(Contract):
    """A loss that a person answers for: checks of ``metric`` may fail until the day is over (UTC).

    What was not measured cannot be waived.
    """

    metric: str = Field(min_length=1)
    author: str = Field(min_length=1)
    reason: str = Field(min_length=1)
    expires: date


class GatePolicy(Contract):
    """A tier, rules of one's own, or both.

    ``significance`` is both the rate at which a candidate as good as its arm is rejected by chance,
    over all tests together, and that at which one at its limit passes a rule on a bound.
    ``min_items`` are the fewest from which a bound is taken.
    """

    tier: Tier | None = None
    rules: tuple[GateRule, ...] = ()
    waivers: tuple[Waiver, ...] = ()
    significance: Annotated[Number, Field(gt=0, lt=0.5)] = 0.05
    min_items: Annotated[int, Field(ge=2, strict=True)] = 20
    expires_after_days: Number = Field(default=30, gt=0)

    @model_validator(mode="after")
    def _says_something(self) -> GatePolicy:
        if self.tier is None and not self.rules:
            raise ValueError("a tier, or at least one rule")
        return self


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
