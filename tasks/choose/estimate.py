"""Estimate the time of the choose step, for the dry run."""

from __future__ import annotations

from layerwright.tasks.choose.base import Selector
from layerwright.tasks.components import build
from layerwright.tasks.contracts.references import ModelRef
from layerwright.tasks.recipe.recipe import Recipe


def seconds(recipe: Recipe, model: ModelRef, token_seconds: float) -> float:
    """Estimate the time of the plans that the selector measures on the model."""
    if recipe.choose is None:
        return 0.0
    selector = build(Selector, recipe.choose.selector)
    tokens = selector.estimate_tokens(model.layers, recipe.profile.row_tokens)
    return 0.1 + tokens * token_seconds
