"""Move a champion: lock the model, verify the version, and emit a Prefect event."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock
from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.events import emit_event
from prefect.settings import get_current_settings

from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.contracts.promotion import Approval, Move
from layerwright.tasks.contracts.references import CheckpointRef
from layerwright.tasks.errors import InputError, StepError
from layerwright.tasks.home import SQLITE, Home
from layerwright.tasks.register.moves import plan_rollback, roll_back, verify_tree
from layerwright.tasks.register.promotion import Promotable, promotable, promote_version
from layerwright.tasks.register.versions import Address
from layerwright.tasks.tracking import connect

LEASE_SECONDS = 60  # Prefect frees the slot of a killed holder after this time


class Registry(Contract):
    """The MLflow registry of a model, and the alias of its champion."""

    home: str  # has room for a remote store's files while they are verified
    tracking_uri: str
    champion: str = "champion"


def promote_champion(
    address: Address, registry: Registry, approve: Callable[[Promotable], Approval]
) -> Move | None:
    """Make a version the champion if its evidence is valid and its promotion is approved.

    Returns the move; None if the version is champion already.
    ``approve``: returns the approval, or raises; not called if the version is champion already.
    PromotionError if the version cannot be promoted (see `promotable`), or is not approved.
    IntegrityError if the checkpoint is not what was registered.
    """
    uri = registry.tracking_uri
    with connect(uri) as client:
        found = promotable(client, address, registry.champion, now())
    approval = None if found.is_champion else approve(found)
    _verify(found.checkpoint, registry)
    # the version that was approved, even if the alias has moved since
    with one_at_a_time(found.address.model, uri), connect(uri) as client:
        move = promote_version(client, found.address, registry.champion, approval, now())
    if move:
        _announce("layerwright.promoted", move, found.checkpoint)
    return move


def roll_back_champion(
    model: str, registry: Registry, approval: Approval, to: str | None = None
) -> Move:
    """Move the champion back to the version before it, or to the earlier champion ``to``.

    PromotionError if there is no such version, IntegrityError if its checkpoint is not what was
    registered.
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
    payload = {"move": move.model_dump(mode="json"), "checkpoint_uri": checkpoint.uri}
    announce(event, move.model, move.version, payload)


def announce(event: str, model: str, version: str, payload: dict[str, Any]) -> None:
    """Emit a Prefect event about a version, to which serving systems can react."""
    resource = {
        "prefect.resource.id": f"layerwright.model.{model}",
        "prefect.resource.name": model,
        "layerwright.version": version,
    }
    emit_event(event, resource=resource, payload=payload)


def now() -> datetime:
    return datetime.now(UTC)


@contextlib.contextmanager
def one_at_a_time(
    model: str, tracking_uri: str, wait_seconds: float = 120, work: str = "champion"
) -> Iterator[None]:
    """Hold a model's lock for the length of the block: for its champion, or for other ``work``.

    With a Prefect server the lock is a concurrency limit of one slot, for all machines. Without
    one, the registry is a file, and the lock is a file beside it, which the system releases when
    its holder ends. StepError if another process holds it for longer than ``wait_seconds``,
    InputError if an MLflow server comes without a Prefect server that its users share.
    """
    name = f"layerwright-{work}-{hashlib.sha256(model.encode()).hexdigest()[:12]}"
    lock: contextlib.AbstractContextManager[Any]
    if get_current_settings().api.url:
        with get_client(sync_client=True) as client:
            client.upsert_global_concurrency_limit_by_name(name, limit=1)
        lock = concurrency(
            name, timeout_seconds=wait_seconds, lease_duration=LEASE_SECONDS, strict=True
        )
    elif tracking_uri.startswith(SQLITE):
        folder = Home.beside(tracking_uri).promotions
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{name}.lock", timeout=wait_seconds)
    else:
        raise InputError(
            f"no lock protects promotions on {tracking_uri}",
            where="PREFECT_API_URL",
            expected="the Prefect server that is shared by all who promote there",
        )
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(lock)
        except TimeoutError as error:  # filelock's own is one too
            other = "promotion or rollback" if work == "champion" else work
            raise StepError(
                f"another {other} of {model} has not ended in {wait_seconds:g} s"
            ) from error
        yield
