"""The recipe's `gate` block (tier, rules, waivers) and its `watch` block (bands)."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from layerwright.tasks.contracts.base import Contract, Number
from layerwright.tasks.contracts.gate import Compared, Comparing, Severity, Tier, Waiver


class GateRule(Contract):
    """One rule with one threshold."""

    metric: str = Field(min_length=1)  # a name or a glob that matches a measurement
    arm: Compared = "base"  # the arm that the candidate is compared with
    # ``value``: the candidate's own; ``ratio`` to the arm's value; ``difference`` from it;
    # ``p_value``: of a loss against the arm, adjusted over all tests of the decision (Holm's
    # method)
    compare: Comparing = "ratio"
    min: Number | None = None  # exactly one of min and max
    max: Number | None = None
    # what must be inside the threshold: the ``value``, or its one-sided confidence ``bound``. A
    # bound needs per-item results. If they show neither that the threshold holds nor that it is
    # broken, the check is inconclusive and fails.
    on: Literal["value", "bound"] = "value"
    across: Literal["each", "mean"] = "each"  # judge ``each`` matching metric, or their ``mean``
    # a glob (``positions 512-*``); by default all items
    slice: str | None = Field(default=None, min_length=1)
    severity: Severity = "fail"  # ``warn`` never rejects

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if (self.min is None) == (self.max is None):
            raise ValueError("exactly one of min and max")
        if self.compare == "value" and self.arm != "base":
            raise ValueError(
                f"compare ratio, difference or p_value: value does not use arm {self.arm}"
            )
        if self.compare == "p_value" and (self.max is not None or self.on == "bound"):
            raise ValueError("min, and on: value: a p_value has no max and no bound")
        if self.across == "mean" and self.compare not in ("ratio", "difference"):
            raise ValueError(f"compare ratio or difference with across: mean, not {self.compare}")
        return self

    @property
    def limit(self) -> float:
        limit = self.min if self.min is not None else self.max
        assert limit is not None  # the validator requires one
        return limit

    @property
    def is_floor(self) -> bool:
        return self.min is not None


class GatePolicy(Contract):
    """A tier, own rules, or both."""

    tier: Tier | None = None
    rules: tuple[GateRule, ...] = ()
    waivers: tuple[Waiver, ...] = ()
    # the accepted rate of two errors. A candidate as good as its arm fails a test by chance (over
    # all tests together); a candidate exactly at a limit passes a rule on a bound.
    significance: Annotated[Number, Field(gt=0, lt=0.5)] = 0.05
    min_items: Annotated[int, Field(ge=2, strict=True)] = 20  # for a bound or a test
    expires_after_days: Number = Field(default=30, gt=0)  # how long the decision is valid

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.tier is None and not self.rules:
            raise ValueError("a tier, or at least one rule")
        return self


class WatchRule(Contract):
    """A band for the ratio of a version's figure to a reference figure."""

    metric: str = Field(min_length=1)  # a name or a glob; it must match at least one measurement
    against: Literal["base", "champion", "registered"] = "base"  # of the same run, or as registered
    min_ratio: Number | None = None
    max_ratio: Number | None = None

    @property
    def reference(self) -> str:
        """The reference in words, for messages."""
        return "registered figure" if self.against == "registered" else f"{self.against}'s figure"

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.min_ratio is None and self.max_ratio is None:
            raise ValueError("a min_ratio, a max_ratio, or both")
        return self
