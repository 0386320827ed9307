"""The champion's alias: moved, read back, and every move kept on the version that it went to."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from layerwright.tasks.contracts.promotion import Approval, Move
from layerwright.tasks.contracts.references import CheckpointRef
from layerwright.tasks.errors import LayerwrightError, StepError
from layerwright.tasks.register.evidence import TAG
from layerwright.tasks.register.versions import checkpoint_of, registered_model, store_of
from layerwright.tasks.store.open import open_store

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

MOVE = f"{TAG}move."


class PromotionError(LayerwrightError):
    """The champion's alias must not move there; it did not move."""

    exit_status = 3


def verify_tree(checkpoint: CheckpointRef, scratch: Path) -> None:
    """Read every byte of a registered checkpoint again, from where its version says that it lies.

    Args:
        scratch: an empty folder; a remote store's files pass through it, whatever was read before.

    Raises:
        IntegrityError: the tree is missing, or is not what was written.
        StepError: the store cannot be read.
    """
    open_store(store_of(checkpoint), scratch).open_tree(checkpoint.sha256)


def refuse_unless_servable(version: ModelVersion) -> CheckpointRef:
    """The checkpoint of a version that an alias may point at.

    Raises:
        PromotionError: MLflow does not say READY.
        StepError: the version lacks tags.
    """
    if version.status != "READY":
        raise PromotionError(
            f"version {version.version} of {version.name} is {version.status}, not READY"
        )
    return checkpoint_of(version)


def move_alias(
    client: MlflowClient,
    action: Literal["promoted", "rolled back"],
    version: ModelVersion,
    alias: str,
    before: str | None,
    approval: Approval,
) -> Move:
    """Point ``alias`` at ``version`` and read it back.

    The move is written down before it is made: one that is cut off leaves a trace.

    Args:
        before: where the alias is.

    Raises:
        StepError: the alias is not where it was put: somebody else moves it too.
    """
    key = f"{MOVE}{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{secrets.token_hex(2)}"
    begun = Move(
        action=action,
        model=version.name,
        alias=alias,
        version=str(version.version),
        before=before,
        by=approval.by,
        reason=approval.reason,
        how=approval.how,
        started_at=_now(),
    )
    client.set_model_version_tag(version.name, begun.version, key, begun.model_dump_json())
    return finish_move(client, key, begun)


def finish_move(client: MlflowClient, key: str, begun: Move) -> Move:
    """Make, or complete, a move that was written down under the tag ``key``.

    Raises:
        StepError: as ``move_alias``.
    """
    name, number, alias = begun.model, begun.version, begun.alias
    client.set_registered_model_alias(name, alias, number)
    model = registered_model(client, name)
    found = model.aliases.get(alias) if model else None
    if found is None or str(found) != number:
        raise StepError(f"{name}@{alias} was put to version {number}, and is at {found}")
    done = begun.model_copy(update={"finished_at": _now()})
    client.set_model_version_tag(name, number, key, done.model_dump_json())
    return done


def moves_to(version: ModelVersion) -> dict[str, Move]:
    """Every move that went to a version, oldest first, by its tag."""
    found = {k: v for k, v in version.tags.items() if k.startswith(MOVE)}
    return {key: Move.model_validate_json(found[key]) for key in sorted(found)}


def unfinished(version: ModelVersion, action: str, alias: str) -> tuple[str, Move] | None:
    """The last move of an alias to a version, with its tag, where it was cut off."""
    last = [(key, move) for key, move in moves_to(version).items() if move.alias == alias][-1:]
    for key, move in last:
        if (move.action, move.finished_at) == (action, None):
            return key, move
    return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
