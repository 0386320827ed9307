"""From a plan to the strategies of its stretches and the specs of its layers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from layerwright.tasks.components import build
from layerwright.tasks.contracts.plan import PlanItem
from layerwright.tasks.errors import InputError
from layerwright.tasks.hybrid.configuration import FULL_LAYER
from layerwright.tasks.strategies.base import LayerSpec, Strategy
from layerwright.tasks.strategies.keep import Keep

if TYPE_CHECKING:  # a step that converts needs no profile
    from layerwright.tasks.contracts.profile import ModelProfile


class Assignment(NamedTuple):
    """Layers ``start`` to ``stop`` (exclusive) become one thing."""

    start: int
    stop: int
    strategy: Strategy


def strategy_of(item: PlanItem) -> Strategy:
    """The strategy of a plan item, with the item's params as its options.

    Raises:
        InputError: an unknown strategy, or an option that it does not have.
    """
    return build(Strategy, item.spec)


def assignments_of(items: Sequence[PlanItem]) -> list[Assignment]:
    """A plan's items as stretches that each become one thing, in order.

    An item of several layers is one stretch where its strategy joins them, else one for each
    layer; neighbouring items of a strategy that merges are one.

    Raises:
        InputError: the plan names an unknown strategy or gives it an option that it has not.
    """
    found: list[Assignment] = []
    for index, item in enumerate(items):
        try:
            strategy = strategy_of(item)
        except InputError as error:
            raise error.at(f"plan items.{index}.params.{error.where}") from error
        if strategy.merges and found and found[-1].strategy == strategy:
            found[-1] = found[-1]._replace(stop=item.stop)
        elif strategy.joins:
            found.append(Assignment(item.start, item.stop, strategy))
        else:
            layers = range(item.start, item.stop)
            found += [Assignment(layer, layer + 1, strategy) for layer in layers]
    return found


def resolved(strategies: Iterable[Strategy], profile: ModelProfile) -> tuple[Strategy, ...]:
    """All that layers can become but `keep`, each once, with what their profiles fill in.

    Raises:
        InputError: scores that a strategy needs and the profile lacks.
    """
    found = (s.resolved(layer.scores) for s in strategies for layer in profile.layers)
    return tuple(dict.fromkeys(own for own in found if not isinstance(own, Keep)))


def specs_of(
    assignments: Sequence[Assignment], base_specs: Sequence[LayerSpec] | None = None
) -> list[LayerSpec]:
    """The hybrid model's spec of each layer, in order.

    Args:
        base_specs: the base's own, per layer; every layer full attention where left out.
    """
    base = base_specs or [FULL_LAYER] * assignments[-1].stop
    return [
        spec
        for start, stop, strategy in assignments
        for spec in strategy.layer_specs(base[start:stop])
    ]
