"""From a plan to the strategies and specs of its layers."""

from __future__ import annotations

from tasks.contracts import ConversionPlan
from tasks.hybrid.configuration import FULL_LAYER
from tasks.registry import build
from tasks.strategies.base import LayerSpec, Strategy


def strategies_of(plan: ConversionPlan) -> list[Strategy]:
    """The strategy of each layer, in order.

    Raises:
        InputError: the plan names an unknown strategy or gives it an option that it has not.
    """
    per_layer: list[Strategy] = []
    for index, item in enumerate(plan.items):
        strategy = build(Strategy, item.spec, where=f"plan items.{index}.params")
        per_layer += [strategy] * (item.stop - item.start)
    return per_layer


def specs_of(plan: ConversionPlan, base_specs: list[LayerSpec] | None = None) -> list[LayerSpec]:
    """The hybrid model's spec of each layer, in order.

    Args:
        base_specs: the base's own, per layer; every layer full attention where left out.

    Raises:
        InputError: as :func:`strategies_of`.
    """
    base = base_specs or [FULL_LAYER] * plan.layers
    return [
        strategy.layer_spec(spec) for strategy, spec in zip(strategies_of(plan), base, strict=True)
    ]
