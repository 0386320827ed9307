"""Collect the versions that a run used, for its report."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    "layerwright",
    "prefect",
    "mlflow",
    "torch",
    "transformers",
    "peft",
    "triton",
    "datasets",
    "boto3",
)


def versions() -> dict[str, str]:
    """Version of Python and of each package that numbers can depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
