"""The trees that the registry's versions stand on."""

from __future__ import annotations

from layerwright.tasks.register.evidence import TAG
from layerwright.tasks.tracking import connect, is_missing

TREES = ("manifest_sha256", "base_sha256")  # the checkpoint, and what it is judged against


def held_trees(tracking_uri: str) -> dict[str, str]:
    """By digest, the version that holds a tree; whatever its alias.

    Args:
        tracking_uri: an MLflow server, or ``sqlite:///FILE``; a file that is not there is not made.

    Raises:
        StepError: MLflow cannot be reached or refuses.
    """
    if is_missing(tracking_uri):
        return {}
    found: dict[str, str] = {}
    token: str | None = None
    with connect(tracking_uri) as client:
        while True:
            page = client.search_model_versions(max_results=1000, page_token=token)
            for version in page:
                for name in TREES:
                    if sha256 := version.tags.get(f"{TAG}{name}"):
                        found.setdefault(sha256, f"{version.name} {version.version}")
            token = page.token
            if not token:
                return found
