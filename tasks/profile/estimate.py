"""Estimate the time of the profile step, for the dry run."""

from layerwright.tasks.contracts.references import ModelRef
from layerwright.tasks.recipe.recipe import Recipe

FORWARDS = 1.6  # cost of a token in the shared pass, in forward passes over it


def seconds(recipe: Recipe, model: ModelRef, token_seconds: float) -> float:
    """Estimate the time of the shared pass, and of the further passes of each profiler."""
    options, strategies = recipe.profile, recipe.choose.strategies if recipe.choose else ()
    further = sum(p.estimate_tokens(model.layers, len(strategies)) for p in options.profilers)
    return (options.rows * options.row_tokens * FORWARDS + further) * token_seconds
