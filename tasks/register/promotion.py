"""Promote a version to champion, after checking its evidence and its approval."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from layerwright.tasks.contracts.promotion import Approval, Move
from layerwright.tasks.contracts.references import CheckpointRef
from layerwright.tasks.contracts.rollout import StoppedRollout
from layerwright.tasks.recipe.registry import ApprovalPolicy
from layerwright.tasks.register.decisions import NONE, StandingDecision, standing_decision
from layerwright.tasks.register.moves import (
    PromotionError,
    finish_move,
    move_alias,
    moves_to,
    servable_checkpoint,
    unfinished,
)
from layerwright.tasks.register.versions import Address, named_version, pointed_at
from layerwright.tasks.rollout.state import stopped_rollout

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

MAX_CLOCK_SKEW = timedelta(minutes=5)  # between two machines with correct clocks


@dataclass(frozen=True)
class Promotable:
    """A version that may become champion. Its checkpoint's bytes are not verified yet."""

    version: ModelVersion
    checkpoint: CheckpointRef
    decision: StandingDecision
    champion: str | None  # the current champion; None if there is none
    is_champion: bool  # the version is already the champion
    rolled_back: Move | None = None  # from this version to the current champion, since the decision
    stopped: StoppedRollout | None = None  # its roll-out, if it rolled it back since the decision

    @property
    def address(self) -> Address:
        return Address(self.version.name, version=str(self.version.version))


def promotable(client: MlflowClient, address: Address, alias: str, now: datetime) -> Promotable:
    """The version at ``address``, if its evidence allows that ``alias`` points at it.

    Raises:
        InputError: the model, alias or version does not exist.
        PromotionError: the version is not READY; the decision on it is a rejection, is expired or
            lies in the future; or it was compared with another champion than the current one.
        StepError: the version lacks tags.
    """
    version = named_version(client, address)
    checkpoint, decision = servable_checkpoint(version), standing_decision(version)
    current = pointed_at(client, version.name, alias)
    champion = str(current.version) if current else None
    if champion == str(version.version):
        return Promotable(version, checkpoint, decision, champion, is_champion=True)
    name = f"version {version.version} of {version.name}"
    if not decision.accepted:
        raise PromotionError(f"the gate rejected {name} in run {decision.run_id}")
    expired, made = decision.expires_at.isoformat(), decision.decided_at.isoformat()
    if now >= decision.expires_at:
        raise PromotionError(
            f"the decision on {name} expired at {expired}\n  to do: requalify it on new data"
        )
    if decision.decided_at > now + MAX_CLOCK_SKEW:
        raise PromotionError(
            f"the decision on {name} was made at {made}, which is in the future: this machine's "
            f"clock says {now.isoformat()}\n  to do: correct the wrong clock, then requalify it"
        )
    _refuse_another_champion(name, decision, champion)
    rolled_back = None  # the last one
    for move in moves_to(current).values() if current else ():
        since = datetime.fromisoformat(move.started_at) >= decision.decided_at
        if since and (move.action, move.before) == ("rolled back", str(version.version)):
            rolled_back = move
    stopped = stopped_rollout(version)
    if stopped and datetime.fromisoformat(stopped.at) < decision.decided_at:
        stopped = None
    return Promotable(version, checkpoint, decision, champion, False, rolled_back, stopped)


def _refuse_another_champion(name: str, decision: StandingDecision, champion: str | None) -> None:
    if decision.champion == (champion or NONE) or (decision.champion is None and champion is None):
        return
    current = f"the champion is version {champion}" if champion else "there is no champion"
    compared = {
        None: "no record says which champion it was compared with",
        NONE: "it was compared with no champion",
    }.get(decision.champion, f"it was compared with version {decision.champion}")
    raise PromotionError(
        f"{current} now, but when the gate judged {name}, {compared}\n"
        "  to do: requalify it, which compares it with the current champion"
    )


def approved_by_policy(policy: ApprovalPolicy, checked: Promotable, now: datetime) -> Approval:
    """The policy's approval; raise PromotionError if the version does not meet its conditions."""
    decision, obstacles = checked.decision, []
    if policy.tiers and decision.tier not in policy.tiers:
        obstacles.append(f"the gate used tier {decision.tier}, not {' or '.join(policy.tiers)}")
    if move := checked.rolled_back:
        obstacles.append(f"{move.by} rolled it back at {move.started_at}: {move.reason}")
    if stopped := checked.stopped:
        when = f"at {stopped.at} in stage {stopped.stage}"
        obstacles.append(f"its roll-out rolled it back {when}: {stopped.reason}")
    if decision.waivers != NONE and not policy.waivers:
        obstacles.append(f"the decision depends on waivers: {decision.waivers}")
    age_days = (now - decision.decided_at) / timedelta(days=1)
    if policy.max_age_days is not None and age_days > policy.max_age_days:
        maximum = f"the maximum is {policy.max_age_days:g}"
        obstacles.append(f"the decision is {age_days:.1f} days old, {maximum}")
    if obstacles:
        raise PromotionError(
            f"the policy does not approve {checked.address}: {'; '.join(obstacles)}\n"
            "  to do: let a person approve it (--approve-by, --reason)"
        )
    return Approval(by=policy.author, reason=policy.reason, how="policy")


def promote_version(
    client: MlflowClient, address: Address, alias: str, approval: Approval | None, now: datetime
) -> Move | None:
    """Check the version again and move the alias. The caller holds a lock on the alias.

    Args:
        approval: None if nobody was asked, because the version was champion at the first check.

    Returns:
        The move, which may be an interrupted one that is now complete; None if the version already
        is champion.
    """
    checked = promotable(client, address, alias, now)
    if checked.is_champion:
        begun = unfinished(checked.version, "promoted", alias)
        return finish_move(client, *begun) if begun else None
    if approval is None:
        raise PromotionError(f"{address} was the champion a moment ago, but no longer is")
    return move_alias(client, "promoted", checked.version, alias, checked.champion, approval)
