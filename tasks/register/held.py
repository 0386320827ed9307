"""The trees that registered versions need, which garbage collection must keep."""

from __future__ import annotations

from layerwright.tasks.register.evidence import TAG
from layerwright.tasks.tracking import connect, is_missing

TREES = ("manifest_sha256", "base_sha256")  # tags with the digests of checkpoint and base


def held_trees(tracking_uri: str) -> dict[str, str]:
    """Each tree that a registered version needs, by digest, with one such version.

    Args:
        tracking_uri: an MLflow server, or ``sqlite:///FILE``; a missing file is not created.

    Raises:
        StepError: MLflow cannot be reached or reports an error.
    """
    if is_missing(tracking_uri):
        return {}
    held: dict[str, str] = {}
    token: str | None = None
    with connect(tracking_uri) as client:
        while True:
            page = client.search_model_versions(max_results=1000, page_token=token)
            for version in page:
                for name in TREES:
                    if sha256 := version.tags.get(f"{TAG}{name}"):
                        held.setdefault(sha256, f"{version.name} {version.version}")
            token = page.token
            if not token:
                return held
