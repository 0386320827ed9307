"""The recipe's `registry` block, with the policy that approves promotions."""

from typing import Annotated

from pydantic import Field

from layerwright.tasks.contracts.base import Contract, Number
from layerwright.tasks.contracts.gate import Tier


class ApprovalPolicy(Contract):
    """A standing approval for all versions that meet its conditions."""

    author: str = Field(min_length=1)  # recorded with each promotion, as the reason
    reason: str = Field(min_length=1)
    tiers: tuple[Tier, ...] = ()  # of the gate; by default any tier, or none
    waivers: bool = False  # accept decisions that depend on a waiver
    max_age_days: Number | None = Field(default=None, gt=0)  # of the decision, besides its expiry


Alias = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")]


class RegisterOptions(Contract):
    """The registered model and the aliases for accepted checkpoints."""

    # the registered model; each accepted checkpoint becomes a version of it
    model_name: str = Field(min_length=1, pattern=r"^[^/:]+$")
    alias: Alias = "challenger"  # the alias that the new version gets
    champion: Alias = "champion"  # the alias of the version measured together with each candidate
    tracking_uri: str | None = None  # by default MLflow in a SQLite file in the home folder
    approval: ApprovalPolicy | None = None  # promotes versions; without it, a person must approve
