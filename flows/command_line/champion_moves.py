"""From a command to a flow that moves a champion, and to what is known of it."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from layerwright.flows.session import embedded
from layerwright.tasks.contracts.promotion import Approval
from layerwright.tasks.errors import InputError
from layerwright.tasks.recipe.approval import ApprovalPolicy
from layerwright.tasks.recipe.recipe import load_recipe
from layerwright.tasks.tracking import SQLITE, refuse_missing

if TYPE_CHECKING:
    from layerwright.flows.promote import Registry


def registry_at(home: Path, tracking_uri: str | None, champion: str) -> Registry:
    """Where a command finds a model's versions.

    Raises:
        InputError: there is no registry; a command that only reads must not make one.
    """
    home = home.resolve()
    embedded.configure(home)
    from layerwright.flows.promote import Registry

    uri = tracking_uri or f"{SQLITE}{home}/mlflow.db"
    refuse_missing(uri)
    return Registry(home=str(home), tracking_uri=uri, champion=champion)


def approval_from(
    approve_by: str | None, reason: str | None, recipe: Path | None, ask: bool
) -> Approval | ApprovalPolicy | Literal["ask"]:
    """The one way of approval that a command names.

    Raises:
        InputError: none, or several; or a recipe without a policy.
    """
    ways = [bool(approve_by or reason), recipe is not None, ask]
    if sum(ways) != 1:
        raise InputError(
            "a promotion needs one approval" + (", not several" if sum(ways) else ""),
            expected="--approve-by NAME --reason TEXT, or --recipe RECIPE with a policy, or --ask",
        )
    if recipe is not None:
        read, document = load_recipe(recipe)
        if read.registry is None or read.registry.approval is None:
            raise InputError(
                "the recipe has no policy for approval",
                where=document.place(("registry", "approval")),
                expected="approval: {author: NAME, reason: TEXT, tiers: [standard]}",
            )
        return read.registry.approval
    if ask:
        if not os.environ.get("PREFECT_API_URL"):
            raise InputError(
                "nobody can answer: an embedded Prefect server ends with the command",
                where="--ask",
                expected="PREFECT_API_URL, a server where people are",
            )
        return "ask"
    if not approve_by or not reason:
        raise InputError("an approval names who and why", expected="--approve-by and --reason")
    return Approval(by=approve_by, reason=reason)


def run_promotion(
    model: str,
    registry: Registry,
    version: str | None,
    alias: str,
    approval: Approval | ApprovalPolicy | Literal["ask"],
) -> dict[str, Any]:
    """Run the promote flow.

    Returns:
        The move as JSON, with ``moved`` false where the version was champion already.
    """
    from layerwright.flows.promote import promote

    with embedded.Server(Path(registry.home)):
        move = promote(model, registry, version, alias, approval)
    if move is None:
        return {"moved": False, "model": model, "alias": registry.champion}
    return {"moved": True, **move.model_dump(mode="json")}


def run_rollback(
    model: str, registry: Registry, to: str | None, approval: Approval
) -> dict[str, Any]:
    """Run the rollback flow."""
    from layerwright.flows.promote import rollback

    with embedded.Server(Path(registry.home)):
        move = rollback(model, registry, approval, to)
    return {"moved": True, **move.model_dump(mode="json")}


def read_history(model: str, registry: Registry) -> dict[str, Any]:
    """A model's versions and moves as JSON."""
    from layerwright.tasks.register.history import history_of
    from layerwright.tasks.tracking import connect

    with connect(registry.tracking_uri) as client:
        found = history_of(client, model, registry.champion, datetime.now(UTC))
    return found.model_dump(mode="json")
