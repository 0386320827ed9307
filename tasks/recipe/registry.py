"""The recipe's `registry` block."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.recipe.approval import ApprovalPolicy

Alias = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")]


class RegisterOptions(Contract):
    """Where an accepted checkpoint becomes a version, and under which alias.

    The version that ``champion`` points at, if any, is measured beside each candidate.
    ``tracking_uri`` None means the embedded MLflow on SQLite under the home folder. ``approval``
    says what may be promoted to champion without being asked for; a person's approval if not given.
    """

    model_name: str = Field(min_length=1, pattern=r"^[^/:]+$")
    alias: Alias = "challenger"
    champion: Alias = "champion"
    tracking_uri: str | None = None
    approval: ApprovalPolicy | None = None
