"""From a plan to the strategies of its stretches and the specs of its layers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from layerwright.tasks.components import build
from layerwright.tasks.contracts.base import Spec
from layerwright.tasks.contracts.plan import PlanItem
from layerwright.tasks.hybrid.configuration import FULL_LAYER, normalised_spec
from layerwright.tasks.strategies.base import LayerSpec, Strategy
from layerwright.tasks.strategies.keep import Keep

if TYPE_CHECKING:  # a step that converts needs no profile
    from layerwright.tasks.contracts.profile import ModelProfile


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


def resolved_specs(strategies: Iterable[Spec], profile: ModelProfile) -> tuple[Spec, ...]:
    """All that layers can become but `keep`, each once, with what their profiles fill in.

    Raises:
        InputError: an unknown strategy or option, or scores that one lacks.
    """
    found: list[Spec] = []
    for spec in strategies:
        strategy = build(Strategy, spec, where="choose.strategies")
        for layer in profile.layers:
            own = strategy.resolved(layer.scores)
            made = spec if own is strategy else own.spec
            if made not in found and not isinstance(own, Keep):
                found.append(made)
    return tuple(found)


def specs_of(
    assignments: Sequence[Assignment], base_specs: Sequence[LayerSpec] | None = None
) -> list[LayerSpec]:
    """The hybrid model's spec of each layer, in order, with its defaults filled in.

    Args:
        base_specs: the base's own, per layer; every layer full attention where left out.
    """
    base = base_specs or [FULL_LAYER] * assignments[-1].stop
    return [
        normalised_spec(spec, layer)
        for start, stop, strategy in assignments
        for layer, spec in enumerate(strategy.layer_specs(base[start:stop]), start)
    ]
