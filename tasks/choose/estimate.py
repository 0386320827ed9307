"""Estimate the time of the choose step, for the dry run."""

from __future__ import annotations

from layerwright.tasks.contracts.references import ModelRef
from layerwright.tasks.recipe.recipe import Recipe


def seconds(recipe: Recipe, model: ModelRef, token_seconds: float) -> float:
    """Estimate the time of the plans that the selector measures on the model."""
    if recipe.choose is None:
        return 0.0
    selector, row_tokens = recipe.choose.selector, recipe.profile.row_tokens
    tokens = selector.estimate_tokens(model.layers, row_tokens)
    return 0.1 + tokens * token_seconds
