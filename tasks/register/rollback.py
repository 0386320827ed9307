"""The champion goes back to a version that was champion before."""

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
    refuse_unless_servable,
    unfinished,
)
from layerwright.tasks.register.versions import Address, named_version

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient


@dataclass(frozen=True)
class Rollback:
    """Where a rollback goes, and the champion that it replaces."""

    target: Address
    checkpoint: CheckpointRef
    replaces: str


def plan_rollback(client: MlflowClient, model: str, alias: str, wanted: str | None) -> Rollback:
    """To ``wanted``, or to the version that the champion replaced when it was promoted.

    An expired decision is no obstacle: that version has served, and what replaced it is worse. A
    rollback that was cut off is the one that goes on, not one further back.

    Raises:
        InputError: no such model, alias or version.
        PromotionError: there is nothing to go back to, ``wanted`` is the champion or never was, or
            the version is not READY.
    """
    current = named_version(client, Address(model, alias=alias))
    number = str(current.version)
    if wanted in (None, number) and unfinished(current, "rolled back", alias):
        return Rollback(Address(model, version=number), refuse_unless_servable(current), number)
    if wanted == number:
        raise PromotionError(f"version {wanted} of {model} is the champion")
    target = named_version(client, Address(model, version=wanted or _before(current, alias)))
    if wanted and not any(
        move.alias == alias and move.finished_at for move in moves_to(target).values()
    ):
        raise PromotionError(
            f"version {wanted} of {model} never was the champion\n  to do: promote it"
        )
    address = Address(model, version=str(target.version))
    return Rollback(address, refuse_unless_servable(target), number)


def _before(current: ModelVersion, alias: str) -> str:
    """The version that the champion replaced when it was promoted, however it came back since."""
    made = [
        move
        for move in moves_to(current).values()
        if (move.alias, move.action) == (alias, "promoted")
    ]
    if not made or made[-1].before is None:
        what = "was the first one" if made else "was not promoted by Layerwright"
        raise PromotionError(
            f"the champion of {current.name}, version {current.version}, {what}: there is none "
            "to go back to\n  to do: name a version with --to"
        )
    return made[-1].before


def roll_back(client: MlflowClient, plan: Rollback, alias: str, approval: Approval) -> Move:
    """Look once more, then move the alias. To be called by one at a time.

    Raises:
        PromotionError: another version is champion by now.
    """
    current = named_version(client, Address(plan.target.model, alias=alias))
    if str(current.version) != plan.replaces:
        raise PromotionError(
            f"the champion of {plan.target.model} was version {plan.replaces} when the rollback "
            f"began, and is {current.version} now"
        )
    begun = unfinished(current, "rolled back", alias)
    if begun and plan.target.version == plan.replaces:
        return finish_move(client, *begun)
    version = named_version(client, plan.target)
    refuse_unless_servable(version)
    return move_alias(client, "rolled back", version, alias, plan.replaces, approval)
