"""Estimate the time of the measure_costs step, for the dry run."""

from layerwright.tasks.contracts.references import ModelRef
from layerwright.tasks.recipe.recipe import Recipe
from layerwright.tasks.strategies.keep import Keep
from layerwright.tasks.strategies.remove import Remove


def seconds(recipe: Recipe, model: ModelRef, token_seconds: float) -> float:
    """Estimate the time of all rounds, as if every kind of layer took the time of the base's."""
    if recipe.costs is None or recipe.choose is None:
        return 0.0
    options, choose = recipe.costs, recipe.choose
    lengths = options.context_tokens or (choose.context_tokens,)
    timed = [s for s in choose.strategies if s.name not in (Keep.name, Remove.name)]
    kinds = len(timed) + 2  # plus the base's kind and the mixed model
    rounds = (options.repeats + 1) * options.batch
    tokens = kinds * rounds * sum(length + options.decode_tokens for length in lengths)
    return tokens * token_seconds
