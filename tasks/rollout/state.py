"""How a staged roll-out stands, in the registry: what it needs to go on, and the share to serve.

One tag of the registered model holds the state, so that it changes as a whole; every stage's last
decision is a tag of the challenger's version.
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
    """The model's latest roll-out; None where there was none."""
    found = registered_model(client, model)
    text = found.tags.get(STATE) if found else None
    return None if text is None else RolloutState.model_validate_json(text)


def write_state(client: MlflowClient, state: RolloutState) -> None:
    client.set_registered_model_tag(state.model, STATE, state.model_dump_json())


def write_decision(client: MlflowClient, state: RolloutState, decision: StageDecision) -> None:
    """Keep the decision on the stage that the state is at."""
    key = f"{_prefix(state)}{state.stage}"
    text = decision.model_dump_json()
    client.set_model_version_tag(state.model, state.challenger, key, text)


def decisions_of(client: MlflowClient, state: RolloutState) -> tuple[StageDecision, ...]:
    """The last decision on each stage of a roll-out so far, in order."""
    version = client.get_model_version(state.model, state.challenger)
    prefix = _prefix(state)
    found = {
        int(key.removeprefix(prefix)): text
        for key, text in version.tags.items()
        if key.startswith(prefix)
    }
    return tuple(StageDecision.model_validate_json(found[stage]) for stage in sorted(found))


def _prefix(state: RolloutState) -> str:
    return f"{TAG}rollout.{state.attempt}."


def mark_stopped(client: MlflowClient, state: RolloutState, stopped: StoppedRollout) -> None:
    """Say on the challenger's version that a roll-out rolled it back."""
    text = stopped.model_dump_json()
    client.set_model_version_tag(state.model, state.challenger, f"{TAG}{STOPPED}", text)


def clear_stopped(client: MlflowClient, version: ModelVersion) -> None:
    """A person starts the version's roll-out again."""
    if tag(version, STOPPED) is not None:
        client.delete_model_version_tag(version.name, str(version.version), f"{TAG}{STOPPED}")


def stopped_rollout(version: ModelVersion) -> StoppedRollout | None:
    """The roll-out that rolled a version back, where there was one."""
    text = tag(version, STOPPED)
    return None if text is None else StoppedRollout.model_validate_json(text)


def live_share(client: MlflowClient, model: str, alias: str) -> LiveShare:
    """What to serve now. A champion that was moved by anything else ends the challenger's share.

    Args:
        alias: the champion's.

    Raises:
        InputError: no such model, or no champion.
    """
    champion = str(named_version(client, Address(model, alias=alias)).version)
    state = read_state(client, model)
    if state is None or state.champion != champion or not state.share:
        return LiveShare(champion=champion)
    return LiveShare(champion=champion, challenger=state.challenger, share=state.share)
