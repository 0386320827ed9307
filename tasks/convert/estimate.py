"""Estimate the time of the convert step, for the dry run."""

from layerwright.tasks.contracts.references import ModelRef
from layerwright.tasks.recipe.recipe import Recipe

PARAMETERS_PER_SECOND = 300e6 / 8  # to copy and to hash


def seconds(recipe: Recipe, model: ModelRef, token_seconds: float) -> float:
    """Estimate the time to copy the weights."""
    return model.parameters / PARAMETERS_PER_SECOND
