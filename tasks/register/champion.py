"""The registry's current champion, to be measured beside a candidate."""

from __future__ import annotations

from layerwright.tasks.contracts.evaluation import Champion
from layerwright.tasks.recipe.registry import RegisterOptions
from layerwright.tasks.register.versions import checkpoint_of, missing_tags, pointed_at
from layerwright.tasks.store.base import Store
from layerwright.tasks.tracking import connect, is_missing


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
    if is_missing(tracking_uri):
        return None
    with connect(tracking_uri) as client:
        found = pointed_at(client, options.model_name, options.champion)
    if found is None:
        return None
    version = str(found.version)
    if missing := missing_tags(found):
        return _unusable(version, f"its version lacks the tags {', '.join(missing)}")
    checkpoint = checkpoint_of(found)
    if checkpoint.base_sha256 != base_sha256:
        return _unusable(version, f"it was made from another base, {checkpoint.base_sha256}")
    if not store.has_tree(checkpoint.sha256):
        return _unusable(version, f"the store does not have {checkpoint.uri}")
    return Champion(version=version, checkpoint=checkpoint)


def _unusable(version: str, why: str) -> Champion:
    return Champion(
        version=version, reason=f"the champion, version {version}, cannot be measured: {why}"
    )
