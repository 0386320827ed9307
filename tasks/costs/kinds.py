"""The distinct kinds of layer: those of the base, and those that the strategies produce."""

from collections.abc import Callable, Sequence

from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.contracts.costs import LayerSpec
from layerwright.tasks.contracts.references import ModelRef
from layerwright.tasks.hybrid.stock import REMOVED
from layerwright.tasks.recipe.recipe import Recipe
from layerwright.tasks.strategies.base import Strategy
from layerwright.tasks.strategies.keep import Keep
from layerwright.tasks.strategies.remove import Remove


class Kind(Contract):
    """A layer spec, and the strategies that produce it."""

    spec: LayerSpec
    strategies: tuple[str, ...] = ()


def kinds_of(
    base_specs: Sequence[LayerSpec], strategies: Sequence[Strategy], log: Callable[[str], None]
) -> list[Kind]:
    """Return the kinds of the kept layers first, then those of the strategies.

    Removed layers are not among them: they take no time. A strategy that joins a run of layers
    gives a single layer for the run, and removed layers.

    Args:
        log: receives a line for each skipped strategy: if its layers decide together, a single
            layer of it has no time.

    Raises:
        InputError: a strategy needs a profile.
    """
    kinds: list[tuple[LayerSpec, dict[str, None]]] = []  # with the names of strategies
    for strategy in (Keep(), *strategies):
        if strategy.decides_together:
            log(f"costs: skipped {strategy.name}: it decides over its layers together")
            continue
        for spec in (spec for base in base_specs for spec in strategy.layer_specs([base, base])):
            if spec == REMOVED:
                continue
            if not (names := next((names for known, names in kinds if known == spec), {})):
                kinds.append((spec, names))
            names[strategy.name] = None
    return [Kind(spec=spec, strategies=tuple(names)) for spec, names in kinds]


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
