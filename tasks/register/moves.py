"""Move the champion alias, verify it, and record each move in a tag of the new champion."""

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
    """The champion alias may not move to this version, and was not moved."""

    exit_status = 3


def verify_tree(checkpoint: CheckpointRef, scratch: Path) -> None:
    """Read a registered checkpoint again, completely, from the address in its version's tags.

    Args:
        scratch: an empty folder, to which a remote store's files are downloaded. An existing cache
            would hide damage in the store.

    Raises:
        IntegrityError: the tree is missing, or a file differs from the manifest.
        StepError: the store cannot be read.
    """
    open_store(store_of(checkpoint), scratch).open_tree(checkpoint.sha256)


def servable_checkpoint(version: ModelVersion) -> CheckpointRef:
    """The checkpoint of a version, if the version can be served.

    Raises:
        PromotionError: MLflow's status of the version is not READY.
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
    """Point ``alias`` at ``version``, and verify it.

    The move is recorded before it is made, so that an interrupted move can be completed.

    Args:
        before: the version that the alias points at now.

    Raises:
        StepError: the alias does not point at ``version`` afterwards, because another move ran.
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
    """Complete a move that is recorded in the tag ``key``.

    Raises:
        StepError: as ``move_alias``.
    """
    name, number, alias = begun.model, begun.version, begun.alias
    client.set_registered_model_alias(name, alias, number)
    model = registered_model(client, name)
    actual = model.aliases.get(alias) if model else None
    if actual is None or str(actual) != number:
        raise StepError(
            f"{name}@{alias} was pointed at version {number}, but points at {actual}: somebody "
            "else moved it at the same time"
        )
    done = begun.model_copy(update={"finished_at": _now()})
    client.set_model_version_tag(name, number, key, done.model_dump_json())
    return done


def moves_to(version: ModelVersion) -> dict[str, Move]:
    """All moves of the champion alias to a version, by tag, oldest first."""
    texts = {k: v for k, v in version.tags.items() if k.startswith(MOVE)}
    return {key: Move.model_validate_json(texts[key]) for key in sorted(texts)}


def unfinished(version: ModelVersion, action: str, alias: str) -> tuple[str, Move] | None:
    """The last move of an alias to a version, after its tag, if that move was interrupted."""
    last = [(key, move) for key, move in moves_to(version).items() if move.alias == alias][-1:]
    for key, move in last:
        if (move.action, move.finished_at) == (action, None):
            return key, move
    return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
