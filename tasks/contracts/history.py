"""What a registry says of a model at a glance."""

from __future__ import annotations

from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.contracts.promotion import Move
from layerwright.tasks.contracts.rollout import RolloutState


class VersionState(Contract):
    """A registered version at a glance. ``state``: whether it may be promoted, or why not."""

    version: str
    aliases: tuple[str, ...]
    decision: str
    expires_at: str
    compared_champion: str
    state: str


class History(Contract):
    """A registered model: its versions, newest first, every move of its champion, in order, and
    its latest roll-out."""

    model: str
    champion: str | None
    versions: tuple[VersionState, ...]
    moves: tuple[Move, ...]
    rollout: RolloutState | None = None
