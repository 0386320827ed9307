"""The recipe's `registry` block, with the policy that approves promotions."""

from typing import Annotated

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


Alias = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")]


class RegisterOptions(Contract):
    """The registered model and the aliases for accepted checkpoints."""

    # the registered model; each accepted checkpoint becomes one version of it
    model_name: str = Field(min_length=1, pattern=r"^[^/:]+$")
    alias: Alias = "challenger"  # the alias that the new version gets
    # the alias of the champion, which is measured together with each candidate
    champion: Alias = "champion"
    # by default the embedded MLflow, a SQLite file in the home folder
    tracking_uri: str | None = None
    # the policy under which versions are promoted; without it, a person must approve
    approval: ApprovalPolicy | None = None
