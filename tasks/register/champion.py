"""The registry's current champion, to be measured beside a candidate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tasks.contracts import Champion, CheckpointRef
from tasks.recipe import RegisterOptions
from tasks.register.evidence import TAG
from tasks.store import Store
from tasks.tracking import SQLITE, connect

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient


def current_champion(
    options: RegisterOptions, *, tracking_uri: str, base_sha256: str, store: Store
) -> Champion | None:
    """The version that ``options.champion`` points at; None where there is none yet.

    Args:
        tracking_uri: an MLflow server, or ``sqlite:///FILE``; a file that is not there is not made.
        base_sha256: of the candidate's base. A champion made from another base has another
            tokenizer, perhaps, and is not measured on the same items.

    Raises:
        StepError: MLflow cannot be reached or refuses.
    """
    if tracking_uri.startswith(SQLITE) and not Path(tracking_uri.removeprefix(SQLITE)).is_file():
        return None
    with connect(tracking_uri) as client:
        found = _pointed_at(client, options)
    if found is None:
        return None
    version, tags = str(found.version), found.tags
    names = ("checkpoint_uri", "manifest_sha256", "checkpoint_bytes", "base_sha256", "plan_sha256")
    held = {name: tags.get(f"{TAG}{name}") for name in names}
    missing = [name for name, value in held.items() if value is None]
    if missing:
        return _unusable(version, f"its version lacks the tags {', '.join(missing)}")
    if held["base_sha256"] != base_sha256:
        return _unusable(version, f"it was made from another base, {held['base_sha256']}")
    if not store.has_tree(str(held["manifest_sha256"])):
        return _unusable(version, f"the store does not have {held['checkpoint_uri']}")
    checkpoint = CheckpointRef(
        uri=held["checkpoint_uri"],
        sha256=held["manifest_sha256"],
        bytes=held["checkpoint_bytes"],
        base_sha256=held["base_sha256"],
        plan_sha256=held["plan_sha256"],
    )
    return Champion(version=version, checkpoint=checkpoint)


def _pointed_at(client: MlflowClient, options: RegisterOptions) -> ModelVersion | None:
    from mlflow.exceptions import MlflowException

    try:
        model = client.get_registered_model(options.model_name)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    version = model.aliases.get(options.champion)
    return None if version is None else client.get_model_version(model.name, str(version))


def _unusable(version: str, why: str) -> Champion:
    return Champion(
        version=version, reason=f"the champion, version {version}, cannot be measured: {why}"
    )
