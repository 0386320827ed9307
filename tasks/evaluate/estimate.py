"""Estimate the time of the evaluate step, for the dry run."""

from __future__ import annotations

from layerwright.tasks.contracts.references import ModelRef
from layerwright.tasks.evaluate.suite import estimate_tokens
from layerwright.tasks.recipe.recipe import Recipe


def seconds(recipe: Recipe, model: ModelRef, token_seconds: float) -> float:
    """Estimate the time of all metrics on all arms; metrics share passes, arms do not."""
    if recipe.evaluate is None:
        return 0.0
    arms = 3 if recipe.evaluate.control else 2
    return arms * estimate_tokens(recipe.evaluate.metrics) * token_seconds
