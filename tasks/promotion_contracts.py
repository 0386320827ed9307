"""Who may move the champion's alias, and what is kept of every move."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tasks.contracts import Contract, Number
from tasks.gate_contracts import Tier


class Approval(Contract):
    """That a version may become champion: who answers for it, and why."""

    by: str = Field(min_length=1)
    reason: str = Field(min_length=1)
    how: Literal["person", "policy"] = "person"


class ApprovalPolicy(Contract):
    """What may become champion without being asked for, and who answers for it.

    Attributes:
        tiers: the tiers of which one must have judged the version; any, or none, where left out.
        waivers: whether the decision may rest on a waiver.
        max_age_days: how old the decision may be, where it must be younger than its expiry asks.
    """

    author: str = Field(min_length=1)
    reason: str = Field(min_length=1)
    tiers: tuple[Tier, ...] = ()
    waivers: bool = False
    max_age_days: Number | None = Field(default=None, gt=0)


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
