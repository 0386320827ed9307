"""A model version in the registry."""

from __future__ import annotations

from layerwright.tasks.contracts.base import Contract


class Registration(Contract):
    """A model version in the registry."""

    name: str
    version: str
    alias: str
    found: bool  # it was there already, and its manifest digest verified
