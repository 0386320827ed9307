"""Estimate the time of the choose step, for the dry run."""

from layerwright.tasks.contracts.references import ModelRef
from layerwright.tasks.recipe.recipe import Recipe


def seconds(recipe: Recipe, model: ModelRef, token_seconds: float) -> float:
    """Estimate the time of the plans that the selector measures on the model."""
    if recipe.choose is None:
        return 0.0
    tokens = recipe.choose.selector.estimate_tokens(model.layers, recipe.profile.row_tokens)
    return 0.1 + tokens * token_seconds
