"""From a plan to the strategies of its stretches and the specs of its layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tasks.contracts import PlanItem
from tasks.hybrid.configuration import FULL_LAYER
from tasks.registry import build
from tasks.strategies.base import LayerSpec, Strategy


class Assignment(NamedTuple):
    """Layers ``start`` to ``stop`` (exclusive) become one thing."""

    start: int
    stop: int
    strategy: Strategy


def assignments_of(items: Sequence[PlanItem]) -> list[Assignment]:
    """A plan's items as stretches that each become one thing, in order.

    An item of several layers is one stretch where its strategy joins them, else one for each
    layer; neighbouring items of a strategy that merges are one.

    Raises:
        InputError: the plan names an unknown strategy or gives it an option that it has not.
    """
    found: list[Assignment] = []
    for index, item in enumerate(items):
        strategy = build(Strategy, item.spec, where=f"plan items.{index}.params")
        if strategy.merges and found and found[-1].strategy == strategy:
            found[-1] = found[-1]._replace(stop=item.stop)
        elif strategy.joins:
            found.append(Assignment(item.start, item.stop, strategy))
        else:
            layers = range(item.start, item.stop)
            found += [Assignment(layer, layer + 1, strategy) for layer in layers]
    return found


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
