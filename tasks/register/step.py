"""The function of the register step."""

from __future__ import annotations

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.registration import Registration
from layerwright.tasks.recipe.registry import RegisterOptions
from layerwright.tasks.register.evidence import Evidence
from layerwright.tasks.register.registry import register_model


def register_candidate(
    evidence: Evidence, options: RegisterOptions, tracking_uri: str, ctx: Context
) -> Registration:
    """Register a checkpoint with its evidence, without loading the weights (`register_model`)."""
    return register_model(evidence, options, tracking_uri=tracking_uri, store=ctx.store)
