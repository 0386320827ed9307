"""The recipe's `registry` block."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.recipe.approval import ApprovalPolicy

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
