"""Move the champion alias forward or back, verify it, and record each move in a tag."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from layerwright.tasks.contracts.promotion import Approval, Move
from layerwright.tasks.contracts.references import CheckpointRef
from layerwright.tasks.errors import LayerwrightError, StepError
from layerwright.tasks.register.evidence import TAG
from layerwright.tasks.register.versions import (
    Address,
    checkpoint_of,
    named_version,
    registered_model,
    store_of,
)
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
    """
    open_store(store_of(checkpoint), scratch).open_tree(checkpoint.sha256)


def servable_checkpoint(version: ModelVersion) -> CheckpointRef:
    """The checkpoint of a version; raise PromotionError unless its status in MLflow is READY."""
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
    """Point ``alias`` at ``version`` instead of ``before``, and verify it.

    The move is recorded before it is made, so that an interrupted move can be completed.

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
        started_at=_now(),
        **approval.model_dump(),
    )
    client.set_model_version_tag(version.name, begun.version, key, begun.model_dump_json())
    return finish_move(client, key, begun)


def finish_move(client: MlflowClient, key: str, begun: Move) -> Move:
    """Complete a move that is recorded in the tag ``key``; raise StepError as ``move_alias``."""
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
    moves = [(key, move) for key, move in moves_to(version).items() if move.alias == alias]
    if moves and (moves[-1][1].action, moves[-1][1].finished_at) == (action, None):
        return moves[-1]
    return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Rollback:
    """A planned rollback: the target version, and the champion that it replaces."""

    target: Address
    checkpoint: CheckpointRef
    replaces: str


def plan_rollback(client: MlflowClient, model: str, alias: str, wanted: str | None) -> Rollback:
    """Plan a rollback to ``wanted``, or to the version that the champion replaced.

    The target's decision may have expired: it has served before, and its successor is worse. If the
    last rollback was interrupted, the plan completes it and does not go back one more version.

    Raises:
        InputError: the model, alias or version does not exist.
        PromotionError: there is no earlier champion; ``wanted`` is the champion or never was; or
            the version is not READY.
    """
    current = named_version(client, Address(model, alias=alias))
    number = str(current.version)
    if wanted in (None, number) and unfinished(current, "rolled back", alias):
        return Rollback(Address(model, version=number), servable_checkpoint(current), number)
    if wanted == number:
        raise PromotionError(f"version {wanted} of {model} is already the champion")
    target = named_version(client, Address(model, version=wanted or _before(current, alias)))
    served = (move.alias == alias and move.finished_at for move in moves_to(target).values())
    if wanted and not any(served):
        raise PromotionError(
            f"version {wanted} of {model} has never been the champion\n  to do: promote it"
        )
    address = Address(model, version=str(target.version))
    return Rollback(address, servable_checkpoint(target), number)


def _before(current: ModelVersion, alias: str) -> str:
    """The version that the champion replaced when it was last promoted. Rollbacks do not count."""
    moves = moves_to(current).values()
    promotions = [move for move in moves if (move.alias, move.action) == (alias, "promoted")]
    if promotions and promotions[-1].before is not None:
        return promotions[-1].before
    why = "was the first one" if promotions else "was not promoted by Layerwright"
    raise PromotionError(
        f"the champion of {current.name}, version {current.version}, {why}, so no earlier "
        "champion is known\n  to do: name a version with --to"
    )


def roll_back(client: MlflowClient, plan: Rollback, alias: str, approval: Approval) -> Move:
    """Check the champion again and move the alias. The caller holds a lock on the alias.

    Raises:
        PromotionError: the champion has changed since the rollback was planned.
    """
    current = named_version(client, Address(plan.target.model, alias=alias))
    if str(current.version) != plan.replaces:
        raise PromotionError(
            f"the champion of {plan.target.model} was version {plan.replaces} when the rollback "
            f"started, and is version {current.version} now"
        )
    begun = unfinished(current, "rolled back", alias)
    if begun and plan.target.version == plan.replaces:
        return finish_move(client, *begun)
    version = named_version(client, plan.target)
    servable_checkpoint(version)
    return move_alias(client, "rolled back", version, alias, plan.replaces, approval)
