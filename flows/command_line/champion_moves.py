"""Run the flows that move a champion, and read the history of a registered model."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from layerwright.flows.command_line.launching import Interrupted
from layerwright.flows.session import embedded
from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.contracts.promotion import Approval, Move
from layerwright.tasks.contracts.rollout import RolloutResult, Side
from layerwright.tasks.errors import InputError
from layerwright.tasks.home import Home
from layerwright.tasks.recipe.recipe import load_recipe
from layerwright.tasks.recipe.registry import ApprovalPolicy
from layerwright.tasks.register.history import History
from layerwright.tasks.tracking import refuse_missing

if TYPE_CHECKING:
    from layerwright.flows.session.champion import Registry


class Moved(Move):
    """A move of a champion."""

    moved: Literal[True] = True


class Unmoved(Contract):
    """No move: the version was champion already."""

    moved: Literal[False] = False
    model: str
    alias: str


class Assignment(Contract):
    """The version that serves a request, at the challenger's share."""

    model: str
    request_id: str
    side: Side
    version: str
    share: float


def registry_at(home: Home, tracking_uri: str | None, champion: str) -> Registry:
    """The registry that a command uses.

    Raises:
        InputError: there is no registry; it is not created, because the command may only read it.
    """
    embedded.configure(home)
    from layerwright.flows.session.champion import Registry

    uri = tracking_uri or home.tracking_uri
    refuse_missing(uri)
    return Registry(home=str(home), tracking_uri=uri, champion=champion)


def approval_from(
    approve_by: str | None, reason: str | None, recipe: Path | None, ask: bool
) -> Approval | ApprovalPolicy | Literal["ask"]:
    """The approval that a command's options give.

    Raises:
        InputError: there is not exactly one approval, or the recipe has no policy.
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
                "nobody can answer: the embedded Prefect server ends with the command",
                where="--ask",
                expected="PREFECT_API_URL, a Prefect server that people use",
            )
        return "ask"
    if not approve_by or not reason:
        raise InputError(
            "an approval needs a name and a reason", expected="--approve-by and --reason"
        )
    return Approval(by=approve_by, reason=reason)


def run_promotion(
    model: str,
    registry: Registry,
    version: str | None,
    alias: str,
    approval: Approval | ApprovalPolicy | Literal["ask"],
) -> Moved | Unmoved:
    """Run the promote flow."""
    from layerwright.flows.promote import promote

    with embedded.Server(Home(Path(registry.home))):
        move = promote(model, registry, version, alias, approval)
    if move is None:
        return Unmoved(model=model, alias=registry.champion)
    return Moved(**dict(move))


def run_rollback(model: str, registry: Registry, to: str | None, approval: Approval) -> Moved:
    """Run the rollback flow."""
    from layerwright.flows.promote import rollback

    with embedded.Server(Home(Path(registry.home))):
        move = rollback(model, registry, approval, to)
    return Moved(**dict(move))


def read_history(model: str, registry: Registry) -> History:
    """A model's versions and moves."""
    from layerwright.tasks.register.history import history_of
    from layerwright.tasks.tracking import connect

    with connect(registry.tracking_uri) as client:
        return history_of(client, model, registry.champion, datetime.now(UTC))


def run_rollout(
    model: str, recipe: Path, assignments: list[str], log: Path, home: Home, restart: bool
) -> RolloutResult:
    """Check recipe and log, then run the rollout flow.

    Raises:
        InputError: the recipe or the log is wrong; nothing was started or written.
        Interrupted: the user pressed Ctrl-C.
    """
    embedded.configure(home)
    from layerwright.flows.rollout import rollout
    from layerwright.flows.session.rollouts import prepare_rollout

    prepare_rollout(model, recipe, assignments, log, home)
    with embedded.Server(home):
        try:
            # Prefect's overloads take a flow that returns Any for one that returns nothing
            return rollout(  # type: ignore[return-value]
                model, str(recipe), str(log), assignments, str(home), restart=restart
            )
        except KeyboardInterrupt:
            raise Interrupted(
                f"the answered requests of the roll-out of {model} are kept; `layerwright rollout` "
                "with the same arguments continues it"
            ) from None


def read_assignment(
    model: str, request_id: str, home: Home, tracking_uri: str | None, champion: str
) -> Assignment:
    """The version that serves a request, at the share that is in the registry now."""
    registry = registry_at(home, tracking_uri, champion)
    from layerwright.tasks.rollout.assignment import assign
    from layerwright.tasks.rollout.state import live_share
    from layerwright.tasks.tracking import connect

    with connect(registry.tracking_uri) as client:
        live = live_share(client, model, registry.champion)
    side = assign(model, request_id, live.share)
    version = live.challenger if side == "challenger" else live.champion
    return Assignment(
        model=model, request_id=request_id, side=side, version=version, share=live.share
    )
