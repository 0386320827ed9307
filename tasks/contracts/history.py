"""The history of a registered model: its versions, the champion's moves, the latest roll-out."""

from __future__ import annotations

from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.contracts.promotion import Move
from layerwright.tasks.contracts.rollout import RolloutState


class VersionState(Contract):
    """A registered version. ``state`` says whether it may be promoted or why it may not."""

    version: str
    aliases: tuple[str, ...]
    decision: str
    expires_at: str
    compared_champion: str
    state: str


class History(Contract):
    """A registered model: versions (newest first), moves of the champion (oldest first) and the
    latest roll-out."""

    model: str
    champion: str | None
    versions: tuple[VersionState, ...]
    moves: tuple[Move, ...]
    rollout: RolloutState | None = None
