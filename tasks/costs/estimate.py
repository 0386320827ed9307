"""How long the step takes, for the dry run."""

from __future__ import annotations

from layerwright.tasks.contracts.references import ModelRef
from layerwright.tasks.recipe.recipe import Recipe
from layerwright.tasks.strategies.keep import Keep
from layerwright.tasks.strategies.remove import Remove


def seconds(recipe: Recipe, model: ModelRef, token_seconds: float) -> float:
    """Timing the layers, as if a layer of each kind took as long as the base's."""
    if recipe.costs is None or recipe.choose is None:
        return 0.0
    options, choose = recipe.costs, recipe.choose
    lengths = options.context_tokens or (choose.context_tokens,)
    timed = [spec for spec in choose.strategies if spec.name not in (Keep.name, Remove.name)]
    kinds = len(timed) + 2  # the base's, and the model of all kinds
    rounds = (options.repeats + 1) * options.batch
    tokens = kinds * rounds * sum(length + options.decode_tokens for length in lengths)
    return tokens * token_seconds
