"""Conversion in memory and back: what a plan would do, without a second model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tasks.hybrid.layer import HybridLayer
from tasks.hybrid.modeling import HybridForCausalLM


@contextmanager
def converted(
    model: HybridForCausalLM, specs: Mapping[int, dict[str, Any]]
) -> Iterator[HybridForCausalLM]:
    """The model with some layers' specs replaced, for the length of the block.

    The very same layer modules are put back afterwards, whatever happens inside.

    Args:
        model: changed in place; its weights are shared, not copied.
        specs: layer index -> the layer's whole spec.

    Raises:
        ValueError: a spec that is not allowed; nothing stays changed.
    """
    before: dict[int, HybridLayer] = {}
    try:
        for layer, spec in specs.items():
            before[layer] = model.set_layer_spec(layer, spec)
        yield model
    finally:
        for layer, module in before.items():
            model.put_layer(layer, module)
