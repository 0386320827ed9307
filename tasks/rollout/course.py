"""The next state of a roll-out after a decision on its stage: pure functions."""

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
    """The decision if the log has fewer requests than the look needs: inconclusive, without a test.

    A test on the available requests would be an additional look, for which the significance level
    leaves no room.
    """
    return StageDecision(
        stage=stage.name,
        share=stage.share,
        look=look,
        requests=len(served),
        by_challenger=sum(record.side == "challenger" for record in served),
        pairs=pairs,
        verdict="inconclusive",
        checks=(),
        decided_at=now.isoformat(timespec="seconds"),
        reason=f"the log has too few requests: {pairs} of {stage.requests * look} pairs of answers",
    )


def next_state(
    state: RolloutState,
    decision: StageDecision,
    policy: RolloutPolicy,
    read: Sequence[Request],
    now: datetime,
) -> RolloutState:
    """The state after a decision on the current stage.

    Args:
        read: the requests of the log up to the last one that this stage used.
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
    """The state after a rollback: the challenger gets no traffic."""
    since = now.isoformat(timespec="seconds")
    update = {"status": "rolled back", "share": 0.0, "since": since, "reason": reason[:1000]}
    return state.model_copy(update=update)


def stopped(state: RolloutState, policy: RolloutPolicy) -> StoppedRollout:
    """The record of a roll-out that was rolled back, for the challenger's version."""
    at = min(state.stage, len(policy.stages) - 1)
    return StoppedRollout(at=state.since, stage=policy.stages[at].name, reason=state.reason)
