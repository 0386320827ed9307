"""Read and write the state of a roll-out in the registry.

One tag of the registered model holds the whole state, so that it changes atomically. The last
decision of each stage is a tag of the challenger's version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerwright.tasks.contracts.rollout import (
    LiveShare,
    RolloutState,
    StageDecision,
    StoppedRollout,
)
from layerwright.tasks.register.evidence import TAG
from layerwright.tasks.register.versions import Address, named_version, registered_model, tag

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

STATE = f"{TAG}rollout"
STOPPED = "rollout_stopped"


def read_state(client: MlflowClient, model: str) -> RolloutState | None:
    """The state of the model's latest roll-out; None if there is none."""
    registered = registered_model(client, model)
    text = registered.tags.get(STATE) if registered else None
    return None if text is None else RolloutState.model_validate_json(text)


def write_state(client: MlflowClient, state: RolloutState) -> None:
    client.set_registered_model_tag(state.model, STATE, state.model_dump_json())


def write_decision(client: MlflowClient, state: RolloutState, decision: StageDecision) -> None:
    """Store the decision on the current stage."""
    key = f"{_prefix(state)}{state.stage}"
    text = decision.model_dump_json()
    client.set_model_version_tag(state.model, state.challenger, key, text)


def decisions_of(client: MlflowClient, state: RolloutState) -> tuple[StageDecision, ...]:
    """The last decision on each stage of a roll-out so far, in order of the stages."""
    version = client.get_model_version(state.model, state.challenger)
    prefix = _prefix(state)
    by_stage = {
        int(key.removeprefix(prefix)): text
        for key, text in version.tags.items()
        if key.startswith(prefix)
    }
    return tuple(StageDecision.model_validate_json(by_stage[stage]) for stage in sorted(by_stage))


def _prefix(state: RolloutState) -> str:
    return f"{TAG}rollout.{state.attempt}."


def mark_stopped(client: MlflowClient, state: RolloutState, stopped: StoppedRollout) -> None:
    """Tag the challenger's version as rolled back by its roll-out."""
    text = stopped.model_dump_json()
    client.set_model_version_tag(state.model, state.challenger, f"{TAG}{STOPPED}", text)


def clear_stopped(client: MlflowClient, version: ModelVersion) -> None:
    """Remove the tag of ``mark_stopped``, because a person restarts the roll-out."""
    if tag(version, STOPPED) is not None:
        client.delete_model_version_tag(version.name, str(version.version), f"{TAG}{STOPPED}")


def stopped_rollout(version: ModelVersion) -> StoppedRollout | None:
    """The roll-out that rolled this version back; None if there is none."""
    text = tag(version, STOPPED)
    return None if text is None else StoppedRollout.model_validate_json(text)


def live_share(client: MlflowClient, model: str, alias: str) -> LiveShare:
    """The versions to serve now, and the challenger's share of traffic.

    The share is 0 if the champion changed since the roll-out began.

    Args:
        alias: of the champion.

    Raises:
        InputError: the model or its champion does not exist.
    """
    champion = str(named_version(client, Address(model, alias=alias)).version)
    state = read_state(client, model)
    if state is None or state.champion != champion or not state.share:
        return LiveShare(champion=champion)
    return LiveShare(champion=champion, challenger=state.challenger, share=state.share)
