"""The approval policy: which versions become champion without asking a person."""

from __future__ import annotations

from pydantic import Field

from layerwright.tasks.contracts.base import Contract, Number
from layerwright.tasks.contracts.gate import Tier


class ApprovalPolicy(Contract):
    """A standing approval for all versions that meet its conditions."""

    # author, reason: the approver and the reason, as recorded with each promotion
    author: str = Field(min_length=1)
    reason: str = Field(min_length=1)
    # the gate must have used one of these tiers; by default any tier, or none
    tiers: tuple[Tier, ...] = ()
    waivers: bool = False  # accept decisions that depend on a waiver
    # maximum age of the gate's decision, in addition to its expiry
    max_age_days: Number | None = Field(default=None, gt=0)
