"""A challenger becomes champion: what must be shown before the alias moves."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from layerwright.tasks.contracts.promotion import Approval, Move
from layerwright.tasks.contracts.references import CheckpointRef
from layerwright.tasks.contracts.rollout import StoppedRollout
from layerwright.tasks.recipe.approval import ApprovalPolicy
from layerwright.tasks.register.decisions import NONE, StandingDecision, standing_decision
from layerwright.tasks.register.moves import (
    PromotionError,
    finish_move,
    move_alias,
    moves_to,
    refuse_unless_servable,
    unfinished,
)
from layerwright.tasks.register.versions import Address, named_version, pointed_at
from layerwright.tasks.rollout.state import stopped_rollout

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

CLOCKS_DIFFER = timedelta(minutes=5)  # more is no drift: one of two machines' clocks is wrong


@dataclass(frozen=True)
class Promotable:
    """A version that may become champion, by all that can be known without reading its bytes.

    Attributes:
        champion: the version that it replaces; None where it is the first.
        is_champion: the alias points at it already.
        rolled_back: the move that took the alias from it to the present champion, where that was
            after its decision.
        stopped: the roll-out that ended with it rolled back, where that was after its decision.
    """

    version: ModelVersion
    checkpoint: CheckpointRef
    decision: StandingDecision
    champion: str | None
    is_champion: bool
    rolled_back: Move | None = None
    stopped: StoppedRollout | None = None

    @property
    def address(self) -> Address:
        return Address(self.version.name, version=str(self.version.version))


def promotable(client: MlflowClient, address: Address, alias: str, now: datetime) -> Promotable:
    """The version at ``address``, where nothing speaks against its being pointed at by ``alias``.

    Raises:
        InputError: no such model, alias or version.
        PromotionError: not READY; rejected, expired, decided in the future; or the champion is not
            the one that it was compared with.
        StepError: MLflow refuses, or the version lacks tags.
    """
    version = named_version(client, address)
    checkpoint, decision = refuse_unless_servable(version), standing_decision(version)
    current = pointed_at(client, version.name, alias)
    champion = str(current.version) if current else None
    if champion == str(version.version):
        return Promotable(version, checkpoint, decision, champion, is_champion=True)
    name = f"version {version.version} of {version.name}"
    if not decision.accepted:
        raise PromotionError(f"the gate rejected {name} in run {decision.run_id}")
    if now >= decision.expires_at:
        expired = decision.expires_at.isoformat()
        raise PromotionError(
            f"the decision on {name} expired at {expired}\n  to do: requalify it on fresh data"
        )
    if decision.decided_at > now + CLOCKS_DIFFER:
        made = decision.decided_at.isoformat()
        raise PromotionError(
            f"the decision on {name} was made at {made}, and it is {now.isoformat()} here: "
            "one of the two clocks is wrong, so its expiry means nothing"
        )
    _refuse_another_champion(name, decision, champion)
    away = _rolled_back(version, current, decision)
    stopped = stopped_rollout(version)
    if stopped and datetime.fromisoformat(stopped.at) < decision.decided_at:
        stopped = None
    return Promotable(version, checkpoint, decision, champion, False, away, stopped)


def _rolled_back(
    version: ModelVersion, current: ModelVersion | None, decision: StandingDecision
) -> Move | None:
    for move in reversed(moves_to(current).values() if current else ()):
        since = datetime.fromisoformat(move.started_at) >= decision.decided_at
        if since and (move.action, move.before) == ("rolled back", str(version.version)):
            return move
    return None


def _refuse_another_champion(name: str, decision: StandingDecision, champion: str | None) -> None:
    if decision.champion == (champion or NONE) or (decision.champion is None and champion is None):
        return
    is_now = f"version {champion} is the champion" if champion else "there is no champion"
    compared = {
        None: "what it was compared with was not recorded",
        NONE: "it was compared with none",
    }.get(decision.champion, f"it was compared with version {decision.champion}")
    raise PromotionError(
        f"{is_now} now, and when {name} was judged {compared}\n"
        "  to do: requalify it: it is then measured beside the present champion"
    )


def approved_by_policy(policy: ApprovalPolicy, found: Promotable, now: datetime) -> Approval:
    """The policy's approval.

    Raises:
        PromotionError: the policy asks for more than the decision has.
    """
    decision, obstacles = found.decision, []
    if policy.tiers and decision.tier not in policy.tiers:
        obstacles.append(
            f"it was judged by the tier {decision.tier}, not {' or '.join(policy.tiers)}"
        )
    if move := found.rolled_back:
        obstacles.append(f"{move.by} rolled it back at {move.started_at}: {move.reason}")
    if stopped := found.stopped:
        obstacles.append(
            f"its roll-out went back at {stopped.at}, stage {stopped.stage}: {stopped.reason}"
        )
    if decision.waivers != NONE and not policy.waivers:
        obstacles.append(f"its decision rests on waivers: {decision.waivers}")
    age_days = (now - decision.decided_at) / timedelta(days=1)
    if policy.max_age_days is not None and age_days > policy.max_age_days:
        obstacles.append(f"its decision is {age_days:.1f} days old, above {policy.max_age_days:g}")
    if obstacles:
        raise PromotionError(
            f"the policy does not approve {found.address}: {'; '.join(obstacles)}\n"
            "  to do: let a person approve it (--approve-by, --reason)"
        )
    return Approval(by=policy.author, reason=policy.reason, how="policy")


def promote_version(
    client: MlflowClient, address: Address, alias: str, approval: Approval | None, now: datetime
) -> Move | None:
    """Look once more, then move the alias. To be called by one at a time.

    Args:
        approval: None where the version was champion already, so that nobody was asked.

    Returns:
        The move, or the one that was cut off, now finished; None where there was none to make.
    """
    found = promotable(client, address, alias, now)
    if found.is_champion:
        begun = unfinished(found.version, "promoted", alias)
        return finish_move(client, *begun) if begun else None
    if approval is None:
        raise PromotionError(f"{address} was the champion a moment ago, and is not any more")
    return move_alias(client, "promoted", found.version, alias, found.champion, approval)
