"""Look up the current champion, which is measured together with a candidate."""

from __future__ import annotations

from layerwright.tasks.contracts.evaluation import Champion
from layerwright.tasks.recipe.registry import RegisterOptions
from layerwright.tasks.register.versions import checkpoint_of, missing_tags, pointed_at
from layerwright.tasks.store.base import Store
from layerwright.tasks.tracking import connect, is_missing


def current_champion(
    options: RegisterOptions, *, tracking_uri: str, base_sha256: str, store: Store
) -> Champion | None:
    """The version that ``options.champion`` points at; None if there is none.

    Args:
        tracking_uri: an MLflow server, or ``sqlite:///FILE``; a missing file is not created.
        base_sha256: of the candidate's base. A champion of another base is not measured, because
            its tokenizer, and so its items, may differ.

    Raises:
        StepError: MLflow cannot be reached or reports an error.
    """
    if is_missing(tracking_uri):
        return None
    with connect(tracking_uri) as client:
        version = pointed_at(client, options.model_name, options.champion)
    if version is None:
        return None
    number = str(version.version)
    if missing := missing_tags(version):
        return _unusable(number, f"it lacks the tags {', '.join(missing)}")
    checkpoint = checkpoint_of(version)
    if checkpoint.base_sha256 != base_sha256:
        return _unusable(number, f"its base is another one, {checkpoint.base_sha256}")
    if not store.has_tree(checkpoint.sha256):
        return _unusable(number, f"the store does not have {checkpoint.uri}")
    return Champion(version=number, checkpoint=checkpoint)


def _unusable(number: str, why: str) -> Champion:
    return Champion(
        version=number, reason=f"the champion, version {number}, cannot be measured: {why}"
    )
