"""The distinct kinds of layer: those of the base, and those that the strategies produce."""

from collections.abc import Callable, Sequence

from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.contracts.costs import LayerSpec
from layerwright.tasks.hybrid.stock import REMOVED
from layerwright.tasks.strategies.base import Strategy
from layerwright.tasks.strategies.keep import Keep


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
        base_specs: specs of the base's layers.
        strategies: the recipe's strategies.
        log: receives a line for each skipped strategy: if its layers decide together, a single
            layer of it has no time.

    Raises:
        InputError: a strategy needs a profile.
    """
    kinds: list[Kind] = []
    for strategy in (Keep(), *strategies):
        if strategy.decides_together:
            log(f"costs: skipped {strategy.name}: it decides over its layers together")
            continue
        for spec in (spec for base in base_specs for spec in strategy.layer_specs([base, base])):
            if spec != REMOVED:
                _add(kinds, spec, strategy.name)
    return kinds


def _add(kinds: list[Kind], spec: LayerSpec, strategy: str) -> None:
    for index, kind in enumerate(kinds):
        if kind.spec == spec:
            names = dict.fromkeys((*kind.strategies, strategy))
            kinds[index] = kind.model_copy(update={"strategies": tuple(names)})
            return
    kinds.append(Kind(spec=spec, strategies=(strategy,)))
