"""Which versions may become champion without a person's approval."""

from __future__ import annotations

from pydantic import Field

from layerwright.tasks.contracts.base import Contract, Number
from layerwright.tasks.contracts.gate import Tier


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
