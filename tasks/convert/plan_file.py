"""Read, write and compare plans as YAML files that people can edit."""

import io
import itertools
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from layerwright.tasks.contracts.plan import ConversionPlan, PlanItem
from layerwright.tasks.disk import write_atomically
from layerwright.tasks.recipe.document import Located

HEADER = """\
# A conversion plan: the strategy of every layer. Edit it and run it again:
#   layerwright plan validate THIS-FILE
#   layerwright convert RECIPE --plan THIS-FILE
# `start` is the first layer of an item, `stop` is its last layer + 1. The items cover all layers.
"""


def write_plan(plan: ConversionPlan, path: Path) -> Path:
    """Write a plan as YAML, without fields that have their default value."""
    yaml = YAML(typ="rt")
    yaml.width = 100
    yaml.indent(mapping=2, sequence=4, offset=2)
    text = io.StringIO()
    yaml.dump(plan.model_dump(mode="json", exclude_defaults=True), text)
    write_atomically(path, (HEADER + text.getvalue()).encode())
    return path


def read_plan(path: Path) -> ConversionPlan:
    """Read a plan, which may have been edited by hand.

    Raises:
        InputError: the first error in the plan, with file, line and field.
    """
    return Located(path).validate(ConversionPlan)


def diff_plans(first: ConversionPlan, second: ConversionPlan) -> list[str]:
    """Return a line for each run of layers that differs between the plans; empty if none does."""
    lines = []
    if first.model_sha256 != second.model_sha256:
        lines.append(f"model: {first.model_sha256[:12]} -> {second.model_sha256[:12]}")
    if first.layers != second.layers:
        lines.append(f"layers: {first.layers} -> {second.layers}")
    both = zip(_by_layer(first), _by_layer(second), strict=False)
    changes = [(layer, a, b) for layer, (a, b) in enumerate(both) if a != b]
    runs = itertools.groupby(enumerate(changes), lambda e: (e[1][0] - e[0], e[1][1:]))
    for (_, (before, after)), group in runs:
        layers = [change[0] for _, change in group]
        span = f"{layers[0]}" if len(layers) == 1 else f"{layers[0]}-{layers[-1]}"
        lines.append(f"layer {span}: {before} -> {after}")
    return lines


def _by_layer(plan: ConversionPlan) -> list[str]:
    return [_describe(item) for item in plan.items for _ in range(item.start, item.stop)]


def _describe(item: PlanItem) -> str:
    def formatted(value: Any) -> str:
        return f"{value:g}" if isinstance(value, float) else str(value)

    options = ", ".join(f"{name}={formatted(value)}" for name, value in sorted(item.params.items()))
    return f"{item.strategy}({options})" if options else item.strategy
