"""Where a roll-out begins, or goes on."""

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
from layerwright.tasks.rollout.state import clear_stopped, read_state, write_state

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

AGAIN = "begin with --restart: it starts from the first stage, with nothing measured"


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
    """The roll-out of the version at the alias ``options.alias``: gone on with, or begun.

    One that has ended for this version is given as it ended.

    Args:
        restart: begin again, whatever became of an earlier one; a person's decision.

    Raises:
        InputError: no such model or alias; another version's roll-out is under way; policy or log
            are not those that it began with.
        PromotionError: the version must not become champion, there is no champion, or it was
            promoted and is champion no more.
    """
    before = read_state(client, model)
    if before and not restart:
        found = pointed_at(client, model, options.alias)
        if found is None or str(found.version) == before.challenger:
            return _go_on(client, before, options, policy, requests)
        if before.status in ("running", "inconclusive"):
            raise InputError(
                f"{model}@{options.alias} is version {found.version}, and the roll-out of version "
                f"{before.challenger} is at {before.share:.0%}",
                remedy=AGAIN,
            )
    address = Address(model, alias=options.alias)
    if restart:
        clear_stopped(client, named_version(client, address))
    version = promotable(client, address, options.champion, now)
    if version.is_champion:
        raise PromotionError(f"{version.address} is the champion already")
    if version.champion is None:
        raise PromotionError(
            f"{model} has no champion to be compared with\n  to do: promote the first one by hand"
        )
    approved_by_policy(policy.approval, version, now)  # what it would not approve at the end
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


def _go_on(
    client: MlflowClient,
    state: RolloutState,
    options: RegisterOptions,
    policy: RolloutPolicy,
    requests: Sequence[Request],
) -> RolloutState:
    if state.status == "rolled back":
        return state
    if state.status == "promoted":
        champion = pointed_at(client, state.model, options.champion)
        if champion is None or str(champion.version) != state.challenger:
            raise PromotionError(
                f"version {state.challenger} of {state.model} was promoted by its roll-out, and is "
                f"not the champion any more\n  to do: requalify it, then {AGAIN}"
            )
        return state
    if identity(policy) != state.policy_sha256:
        raise InputError("the roll-out began under another policy", where="rollout", remedy=AGAIN)
    if identity(list(requests[: state.begin])) != state.log_sha256:
        raise InputError(
            f"its first {state.begin} requests are not those that the roll-out has read",
            where="--log",
            expected="the log that the roll-out began with, or one that goes on behind it",
            remedy=AGAIN,
        )
    if state.look > policy.looks:
        return state
    return state.model_copy(update={"status": "running"})
