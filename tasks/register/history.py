"""Read the history of a registered model: versions, moves of the champion, latest roll-out."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.contracts.promotion import Move
from layerwright.tasks.contracts.rollout import RolloutState
from layerwright.tasks.errors import LayerwrightError
from layerwright.tasks.register.decisions import NONE, standing_decision
from layerwright.tasks.register.moves import moves_to
from layerwright.tasks.register.promotion import promotable
from layerwright.tasks.register.versions import Address, named_model
from layerwright.tasks.rollout.state import read_state

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient


class VersionState(Contract):
    """A registered version. ``state`` says whether it may be promoted or why it may not."""

    version: str
    aliases: tuple[str, ...]
    decision: str
    expires_at: str
    compared_champion: str
    state: str


class History(Contract):
    """A registered model: its versions, the champion's moves and the latest roll-out."""

    model: str
    champion: str | None
    versions: tuple[VersionState, ...]  # newest first
    moves: tuple[Move, ...]  # oldest first
    rollout: RolloutState | None = None


def history_of(client: MlflowClient, name: str, alias: str, now: datetime) -> History:
    """The history of a registered model; raise InputError if the model does not exist.

    Args:
        alias: of the champion.
    """
    aliases = named_model(client, name).aliases
    quote = '"' if "'" in name else "'"  # MLflow's filters cannot escape quotes
    versions = list(client.search_model_versions(f"name = {quote}{name}{quote}"))
    versions.sort(key=lambda version: int(version.version), reverse=True)
    moves = [move for version in versions for move in moves_to(version).items()]
    champion = aliases.get(alias)
    return History(
        model=name,
        champion=None if champion is None else str(champion),
        versions=tuple(_state(client, version, aliases, alias, now) for version in versions),
        moves=tuple(move for _, move in sorted(moves, key=lambda move: move[0])),
        rollout=read_state(client, name),
    )


def _state(
    client: MlflowClient, version: ModelVersion, aliases: dict[str, str], alias: str, now: datetime
) -> VersionState:
    number = str(version.version)
    decision, expires, compared = NONE, "", NONE
    try:
        standing = standing_decision(version)
        decision = "accepted" if standing.accepted else "rejected"
        expires = standing.expires_at.isoformat(timespec="seconds")
        compared = standing.champion or "not recorded"
        checked = promotable(client, Address(version.name, version=number), alias, now)
        state = "the champion" if checked.is_champion else "may be promoted"
    except LayerwrightError as error:
        state = str(error).splitlines()[0]
    return VersionState(
        version=number,
        aliases=tuple(sorted(name for name, at in aliases.items() if str(at) == number)),
        decision=decision,
        expires_at=expires,
        compared_champion=compared,
        state=state,
    )
