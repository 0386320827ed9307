"""Turns a plan into strategies for runs of layers, and into the spec of each layer."""

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
    """A strategy for the run of layers ``start`` to ``stop`` (exclusive)."""

    start: int
    stop: int
    strategy: Strategy


def strategy_of(item: PlanItem) -> Strategy:
    """The strategy of a plan item; InputError if the strategy or one of its options is unknown."""
    return build(Strategy, item.spec)


def assignments_of(items: Sequence[PlanItem]) -> list[Assignment]:
    """The assignments of a plan's items, in order.

    An item of several layers is one assignment if its strategy joins them, else one per layer.
    Neighbouring items whose strategy merges are one. InputError: an unknown strategy or option.
    """
    assignments: list[Assignment] = []
    for index, item in enumerate(items):
        try:
            strategy = strategy_of(item)
        except InputError as error:
            raise error.at(f"plan items.{index}.params.{error.where}") from error
        if strategy.merges and assignments and assignments[-1].strategy == strategy:
            assignments[-1] = assignments[-1]._replace(stop=item.stop)
        elif strategy.joins:
            assignments.append(Assignment(item.start, item.stop, strategy))
        else:
            layers = range(item.start, item.stop)
            assignments += [Assignment(layer, layer + 1, strategy) for layer in layers]
    return assignments


def resolved(strategies: Iterable[Strategy], profile: ModelProfile) -> tuple[Strategy, ...]:
    """Every distinct form that layers can become, except `keep`; InputError: a score is missing."""
    forms = (s.resolved(layer.scores) for s in strategies for layer in profile.layers)
    return tuple(dict.fromkeys(own for own in forms if not isinstance(own, Keep)))


def specs_of(
    assignments: Sequence[Assignment], base_specs: Sequence[LayerSpec] | None = None
) -> list[LayerSpec]:
    """The hybrid spec of each layer, in order; by default the base is full attention throughout."""
    base = base_specs or [FULL_LAYER] * assignments[-1].stop
    return [spec for start, stop, how in assignments for spec in how.layer_specs(base[start:stop])]
