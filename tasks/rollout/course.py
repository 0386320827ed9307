"""Where a roll-out goes from a decision on its stage: pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from layerwright.tasks.contracts.base import identity
from layerwright.tasks.contracts.rollout import (
    Request,
    RolloutState,
    Served,
    StageDecision,
    StoppedRollout,
)
from layerwright.tasks.recipe.rollout import RolloutPolicy, RolloutStage


def log_ended(
    stage: RolloutStage, look: int, served: Sequence[Served], pairs: int, now: datetime
) -> StageDecision:
    """The decision where the log has fewer requests than a look asks for: none, by no test.

    Looking at what there is would be one look more than the significance is shared among.
    """
    return StageDecision(
        stage=stage.name,
        share=stage.share,
        look=look,
        requests=len(served),
        by_challenger=sum(one.side == "challenger" for one in served),
        pairs=pairs,
        verdict="inconclusive",
        checks=(),
        decided_at=now.isoformat(timespec="seconds"),
        reason=f"the log ended: {pairs} of {stage.requests * look} pairs of answers",
    )


def next_state(
    state: RolloutState,
    decision: StageDecision,
    policy: RolloutPolicy,
    read: Sequence[Request],
    now: datetime,
) -> RolloutState:
    """The state behind a decision on the stage that ``state`` is at.

    Args:
        read: the log as far as this stage has read it.
    """
    if decision.verdict == "roll back":
        return rolled_back(state, decision.reason, now)
    if decision.verdict == "advance":
        stage = state.stage + 1
        last = stage == len(policy.stages)
        since = {} if last else {"since": now.isoformat(timespec="seconds")}
        return state.model_copy(
            update={
                "stage": stage,
                "look": 1,
                "share": state.share if last else policy.stages[stage].share,
                "begin": len(read),
                "log_sha256": identity(list(read)),
                "reason": "",
                **since,
            }
        )
    reason = {"reason": decision.reason[:1000]}
    if not decision.checks:
        return state.model_copy(update={"status": "inconclusive", **reason})
    if state.look < policy.looks:
        return state.model_copy(update={"look": state.look + 1, **reason})
    if policy.undecided == "roll back":
        why = f"inconclusive after {policy.looks} looks: {decision.reason}"
        return rolled_back(state, why, now)
    return state.model_copy(update={"status": "inconclusive", "look": state.look + 1, **reason})


def rolled_back(state: RolloutState, reason: str, now: datetime) -> RolloutState:
    """The challenger gets no request any more."""
    since = now.isoformat(timespec="seconds")
    update = {"status": "rolled back", "share": 0.0, "since": since, "reason": reason[:1000]}
    return state.model_copy(update=update)


def stopped(state: RolloutState, policy: RolloutPolicy) -> StoppedRollout:
    """What a version is told of its roll-out that went back."""
    at = min(state.stage, len(policy.stages) - 1)
    return StoppedRollout(at=state.since, stage=policy.stages[at].name, reason=state.reason)
