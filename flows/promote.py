"""The flows that move a champion: promotion with approval, and rollback."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from prefect import flow
from prefect.events import emit_event
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from pydantic import Field

from layerwright.flows.session.serialised import one_at_a_time
from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.contracts.promotion import Approval, Move
from layerwright.tasks.contracts.references import CheckpointRef
from layerwright.tasks.recipe.approval import ApprovalPolicy
from layerwright.tasks.register.moves import PromotionError, verify_tree
from layerwright.tasks.register.promotion import (
    Promotable,
    approved_by_policy,
    promotable,
    promote_version,
)
from layerwright.tasks.register.rollback import plan_rollback, roll_back
from layerwright.tasks.register.versions import Address
from layerwright.tasks.tracking import connect

DAY_SECONDS = 24 * 3600


class Registry(Contract):
    """Where a model is registered, and what its champion is called.

    ``home`` has room for a remote store's files while they are read again.
    """

    home: str
    tracking_uri: str
    champion: str = "champion"


class Answer(RunInput):
    """What a person says to a promotion that waits."""

    approved: bool
    by: str = Field(min_length=1)
    reason: str = Field(min_length=1)


@flow(name="promote", flow_run_name="promote {model}")
def promote(
    model: str,
    registry: Registry,
    version: str | None = None,
    alias: str = "challenger",
    approval: Approval | ApprovalPolicy | Literal["ask"] = "ask",
    wait_seconds: int = DAY_SECONDS,
) -> Move | None:
    """A version becomes champion, if all that must be shown is shown and somebody answers for it.

    Args:
        version: the version; the one that ``alias`` points at where left out.
        approval: given, or a policy, or ``ask``: the run pauses until a person answers in Prefect.
        wait_seconds: how long it waits for that.

    Returns:
        The move; None where the version is champion already.

    Raises:
        PromotionError: see ``promotable``; or not approved.
        IntegrityError: the checkpoint is not what was registered.
    """
    address = Address(model, version=version) if version else Address(model, alias=alias)
    with connect(registry.tracking_uri) as client:
        found = promotable(client, address, registry.champion, _now())
    answer = None if found.is_champion else _approval(found, approval, wait_seconds)
    _verify(found.checkpoint, registry)
    # the version that was approved, wherever the alias is by now
    with one_at_a_time(model, registry.tracking_uri), connect(registry.tracking_uri) as client:
        move = promote_version(client, found.address, registry.champion, answer, _now())
    if move:
        _announce("layerwright.promoted", move, found.checkpoint)
    return move


def _approval(
    found: Promotable, approval: Approval | ApprovalPolicy | Literal["ask"], wait_seconds: int
) -> Approval:
    if isinstance(approval, ApprovalPolicy):
        return approved_by_policy(approval, found, _now())
    if isinstance(approval, Approval):
        return approval
    decision = found.decision
    question = Answer.with_initial_data(
        description=f"{found.address} shall become champion in place of "
        f"{f'version {found.champion}' if found.champion else 'none'}. The gate accepted it at "
        f"{decision.decided_at.isoformat()} in run {decision.run_id} (tier {decision.tier}, "
        f"waivers {decision.waivers})."
    )
    said = pause_flow_run(wait_for_input=question, timeout=wait_seconds, poll_interval=2)
    if not said.approved:
        raise PromotionError(f"{said.by} does not approve {found.address}: {said.reason}")
    return Approval(by=said.by, reason=said.reason)


@flow(name="rollback", flow_run_name="roll back {model}")
def rollback(model: str, registry: Registry, approval: Approval, to: str | None = None) -> Move:
    """The champion goes back to the version before it, or to an earlier champion.

    Raises:
        PromotionError: there is none to go back to.
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
    with _scratch(Path(registry.home)) as folder:
        verify_tree(checkpoint, folder)


@contextlib.contextmanager
def _scratch(home: Path) -> Iterator[Path]:
    """A folder that is gone afterwards, on the disk that has room for checkpoints."""
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="verify-", dir=home) as folder:
        yield Path(folder)


def _announce(event: str, move: Move, checkpoint: CheckpointRef) -> None:
    """Tell the serving side, by an event of Prefect's."""
    emit_event(
        event,
        resource={
            "prefect.resource.id": f"layerwright.model.{move.model}",
            "prefect.resource.name": move.model,
            "layerwright.version": move.version,
        },
        payload={"move": move.model_dump(mode="json"), "checkpoint_uri": checkpoint.uri},
    )


def _now() -> datetime:
    return datetime.now(UTC)
