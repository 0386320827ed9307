"""Who may move the champion's alias, and what is kept of every move."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from layerwright.tasks.contracts.base import Contract


class Approval(Contract):
    """That a version may become champion: who answers for it, and why."""

    by: str = Field(min_length=1)
    reason: str = Field(min_length=1)
    how: Literal["person", "policy"] = "person"


class Move(Contract):
    """One move of the champion's alias, as the model version that it went to keeps it.

    Attributes:
        before: the version that was champion until then; None for the first.
        by, reason, how: who answers for it, why, and how that was said.
        finished_at: when it had been made and read back; None for one that was cut off.
    """

    action: Literal["promoted", "rolled back"]
    model: str
    alias: str
    version: str
    before: str | None
    by: str
    reason: str
    how: Literal["person", "policy"]
    started_at: str
    finished_at: str | None = None
