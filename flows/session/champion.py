"""Move a champion: verify the version, lock the model, and emit a Prefect event."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from prefect.events import emit_event

from layerwright.flows.session.serialised import one_at_a_time
from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.contracts.promotion import Approval, Move
from layerwright.tasks.contracts.references import CheckpointRef
from layerwright.tasks.home import Home
from layerwright.tasks.register.moves import plan_rollback, roll_back, verify_tree
from layerwright.tasks.register.promotion import Promotable, promotable, promote_version
from layerwright.tasks.register.versions import Address
from layerwright.tasks.tracking import connect


class Registry(Contract):
    """The MLflow registry of a model, and the alias of its champion.

    ``home`` has room for a remote store's files while they are verified.
    """

    home: str
    tracking_uri: str
    champion: str = "champion"


def promote_champion(
    address: Address, registry: Registry, approve: Callable[[Promotable], Approval]
) -> Move | None:
    """Make a version the champion if its evidence is valid and its promotion is approved.

    Args:
        approve: returns the approval, or raises; not called if the version is champion already.

    Returns:
        The move; None if the version is champion already.

    Raises:
        PromotionError: the version cannot be promoted (see `promotable`), or is not approved.
        IntegrityError: the checkpoint is not what was registered.
    """
    with connect(registry.tracking_uri) as client:
        found = promotable(client, address, registry.champion, now())
    approval = None if found.is_champion else approve(found)
    _verify(found.checkpoint, registry)
    # the version that was approved, even if the alias has moved since
    with (
        one_at_a_time(found.address.model, registry.tracking_uri),
        connect(registry.tracking_uri) as client,
    ):
        move = promote_version(client, found.address, registry.champion, approval, now())
    if move:
        _announce("layerwright.promoted", move, found.checkpoint)
    return move


def roll_back_champion(
    model: str, registry: Registry, approval: Approval, to: str | None = None
) -> Move:
    """Move the champion back to the version before it, or to the earlier champion ``to``.

    Raises:
        PromotionError: there is no such version.
        IntegrityError: its checkpoint is not what was registered.
    """
    with connect(registry.tracking_uri) as client:
        plan = plan_rollback(client, model, registry.champion, to)
    _verify(plan.checkpoint, registry)
    with one_at_a_time(model, registry.tracking_uri), connect(registry.tracking_uri) as client:
        move = roll_back(client, plan, registry.champion, approval)
    _announce("layerwright.rolled-back", move, plan.checkpoint)
    return move


def _verify(checkpoint: CheckpointRef, registry: Registry) -> None:
    with Home(Path(registry.home)).scratch("verify-") as folder:
        verify_tree(checkpoint, folder)


def _announce(event: str, move: Move, checkpoint: CheckpointRef) -> None:
    """Emit a Prefect event, to which serving systems can react."""
    emit_event(
        event,
        resource={
            "prefect.resource.id": f"layerwright.model.{move.model}",
            "prefect.resource.name": move.model,
            "layerwright.version": move.version,
        },
        payload={"move": move.model_dump(mode="json"), "checkpoint_uri": checkpoint.uri},
    )


def now() -> datetime:
    return datetime.now(UTC)
