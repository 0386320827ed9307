"""The recipe's `gate` block: rules, waivers, tier."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from layerwright.tasks.contracts.base import Contract, Number
from layerwright.tasks.contracts.gate import Compared, Comparing, Severity, Tier, Waiver


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
