"""The recipe's `watch` block: bands that a registered version must stay in."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from layerwright.tasks.contracts.base import Contract, Number


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
