"""Roll the champion alias back to a version that was champion before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from layerwright.tasks.contracts.promotion import Approval, Move
from layerwright.tasks.contracts.references import CheckpointRef
from layerwright.tasks.register.moves import (
    PromotionError,
    finish_move,
    move_alias,
    moves_to,
    servable_checkpoint,
    unfinished,
)
from layerwright.tasks.register.versions import Address, named_version

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient


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
    if wanted and not any(
        move.alias == alias and move.finished_at for move in moves_to(target).values()
    ):
        raise PromotionError(
            f"version {wanted} of {model} has never been the champion\n  to do: promote it"
        )
    address = Address(model, version=str(target.version))
    return Rollback(address, servable_checkpoint(target), number)


def _before(current: ModelVersion, alias: str) -> str:
    """The version that the champion replaced when it was last promoted. Rollbacks do not count."""
    promotions = [
        move
        for move in moves_to(current).values()
        if (move.alias, move.action) == (alias, "promoted")
    ]
    if not promotions or promotions[-1].before is None:
        why = "was the first one" if promotions else "was not promoted by Layerwright"
        raise PromotionError(
            f"the champion of {current.name}, version {current.version}, {why}, so no earlier "
            "champion is known\n  to do: name a version with --to"
        )
    return promotions[-1].before


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
