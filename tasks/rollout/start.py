"""Start a roll-out, or resume it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from layerwright.tasks.contracts.base import identity
from layerwright.tasks.contracts.rollout import Request, RolloutState
from layerwright.tasks.errors import InputError
from layerwright.tasks.recipe.registry import RegisterOptions
from layerwright.tasks.recipe.rollout import RolloutPolicy
from layerwright.tasks.register.moves import PromotionError
from layerwright.tasks.register.promotion import approved_by_policy, promotable
from layerwright.tasks.register.versions import Address, named_version, pointed_at
from layerwright.tasks.rollout.replay import SAME_LOG
from layerwright.tasks.rollout.state import clear_stopped, read_state, write_state

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

RESTART = "add --restart, which discards all measurements and starts at the first stage"


def open_rollout(
    client: MlflowClient,
    model: str,
    options: RegisterOptions,
    policy: RolloutPolicy,
    requests: Sequence[Request],
    *,
    now: datetime,
    restart: bool = False,
) -> RolloutState:
    """The state of the roll-out of the version at ``options.alias``: resumed, or new.

    A roll-out of this version that has ended is returned as it ended, unless ``restart`` is set.

    Raises:
        InputError: the model or alias does not exist; a roll-out of another version is not
            finished; the policy or the log differs from the one that the roll-out began with.
        PromotionError: the version may not become champion, there is no champion, or the roll-out
            promoted the version and it is no longer champion.
    """
    before = read_state(client, model)
    if before and not restart:
        challenger = pointed_at(client, model, options.alias)
        if challenger is None or str(challenger.version) == before.challenger:
            return _resume(client, before, options, policy, requests)
        if before.status in ("running", "inconclusive"):
            raise InputError(
                f"the roll-out of version {before.challenger} is not finished (share "
                f"{before.share:.0%}), and {model}@{options.alias} is now version "
                f"{challenger.version}",
                remedy=RESTART,
            )
    address = Address(model, alias=options.alias)
    if restart:
        clear_stopped(client, named_version(client, address))
    version = promotable(client, address, options.champion, now)
    if version.is_champion:
        raise PromotionError(f"{version.address} is already the champion")
    if version.champion is None:
        raise PromotionError(
            f"{model} has no champion to compare with\n"
            "  to do: promote a first version with `layerwright promote`"
        )
    approved_by_policy(policy.approval, version, now)  # fail now, not after the last stage
    state = RolloutState(
        model=model,
        champion=version.champion,
        challenger=str(version.version.version),
        attempt=before.attempt + 1 if before else 1,
        policy_sha256=identity(policy),
        share=policy.stages[0].share,
        since=now.isoformat(timespec="seconds"),
        log_sha256=identity([]),
    )
    write_state(client, state)
    return state


def _resume(
    client: MlflowClient,
    state: RolloutState,
    options: RegisterOptions,
    policy: RolloutPolicy,
    requests: Sequence[Request],
) -> RolloutState:
    if state.status == "promoted":
        champion = pointed_at(client, state.model, options.champion)
        if champion is None or str(champion.version) != state.challenger:
            raise PromotionError(
                f"the roll-out promoted version {state.challenger} of {state.model}, which is no "
                f"longer the champion\n  to do: requalify it, then {RESTART}"
            )
    if state.status in ("promoted", "rolled back"):
        return state
    if identity(policy) != state.policy_sha256:
        differs = "the policy differs from the one that the roll-out began with"
        raise InputError(differs, where="rollout", remedy=RESTART)
    if identity(list(requests[: state.begin])) != state.log_sha256:
        raise InputError(
            f"the first {state.begin} requests differ from those that the roll-out has read",
            where="--log",
            expected=SAME_LOG,
            remedy=RESTART,
        )
    return state if state.look > policy.looks else state.model_copy(update={"status": "running"})
