"""The recipe's `watch` block: bands for the figures of a registered version."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from layerwright.tasks.contracts.base import Contract, Number


class WatchRule(Contract):
    """A band for the ratio of a version's figure to a reference figure."""

    metric: str = Field(min_length=1)  # a name or a glob; it must match at least one measurement
    # the reference: the base or the champion, measured in the same run, or the version's own figure
    # when it was registered
    against: Literal["base", "champion", "registered"] = "base"
    min_ratio: Number | None = None
    max_ratio: Number | None = None

    @property
    def reference(self) -> str:
        """The reference in words, for messages."""
        return "registered figure" if self.against == "registered" else f"{self.against}'s figure"

    @model_validator(mode="after")
    def _bounded(self) -> WatchRule:
        if self.min_ratio is None and self.max_ratio is None:
            raise ValueError("a min_ratio, a max_ratio, or both")
        return self
