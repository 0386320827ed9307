"""The result of the register step."""

from __future__ import annotations

from layerwright.tasks.contracts.base import Contract


class Registration(Contract):
    """A model version in the registry.

    ``found``: the version existed before this run, with the same manifest digest.
    """

    name: str
    version: str
    alias: str
    found: bool
