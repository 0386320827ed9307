"""Registration of a version, approvals of promotions, and the record of each champion move."""

from typing import Literal

from pydantic import Field

from layerwright.tasks.contracts.base import Contract


class Registration(Contract):
    """A model version in the registry."""

    name: str
    version: str
    alias: str
    # the class that loads it: `layerwright` needs the code in the checkpoint, others need none
    model_type: str | None = None
    found: bool  # the version existed before this run, with the same manifest digest


class Approval(Contract):
    """The approval that a version may become champion: the approver, and the reason."""

    by: str = Field(min_length=1)
    reason: str = Field(min_length=1)
    how: Literal["person", "policy"] = "person"


class Move(Contract):
    """One move of the champion alias, stored in a tag of the version that became champion."""

    action: Literal["promoted", "rolled back"]
    model: str
    alias: str
    version: str
    before: str | None  # the previous champion; None if there was none
    by: str  # as in the `Approval`
    reason: str
    how: Literal["person", "policy"]
    started_at: str
    finished_at: str | None = None  # confirmed by the registry; None if it was interrupted
