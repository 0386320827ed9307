"""The layer map and the table of reasons: the strategy of each layer, and why."""

import math
from itertools import groupby
from typing import NamedTuple

from layerwright.tasks.contracts.plan import ConversionPlan, PlanItem
from layerwright.tasks.report.formats import options
from layerwright.tasks.report.looks import Look, looks


def item_layers(item: PlanItem) -> str:
    return span_text(item.start, item.stop)


def item_name(item: PlanItem) -> str:
    """``streaming (sinks 4, window 252)``."""
    return item.strategy + (f" ({options(item.params)})" if item.params else "")


def span_text(start: int, stop: int) -> str:
    """``3``, ``12 to 19``; ``stop`` is exclusive."""
    return str(start) if stop == start + 1 else f"{start} to {stop - 1}"


def map_columns(layers: int) -> int:
    """The number of columns of the map on a wide screen that fills the last row best."""
    return min((16, 15, 20, 18, 14, 12), key=lambda columns: -layers % columns)


def layer_map(plan: ConversionPlan) -> list[tuple[int, Look, str]]:
    """(layer, look, tooltip) of each layer."""
    look = looks(plan)
    cells = []
    for item in plan.items:
        span = f" for layers {item_layers(item)} together" if item.stop - item.start > 1 else ""
        for layer in range(item.start, item.stop):
            title = f"layer {layer}: {item_name(item)}{span}" + (
                f". {item.reason}" if item.reason else ""
            )
            cells.append((layer, look[item.strategy], title))
    return cells


class LayerRun(NamedTuple):
    """Consecutive layers with the same strategy and options; ``width`` is their number."""

    width: int
    look: Look
    title: str


def plan_strip(plan: ConversionPlan, look: dict[str, Look]) -> list[LayerRun]:
    """A whole plan in one line."""
    segments = []
    runs = groupby(plan.items, key=lambda item: (item.strategy, options(item.params)))
    for (strategy, params), group in runs:
        items = list(group)
        start, stop = items[0].start, items[-1].stop
        what = strategy + (f" ({params})" if params else "")
        title = f"{'layer' if stop == start + 1 else 'layers'} {span_text(start, stop)}: {what}"
        segments.append(LayerRun(stop - start, look[strategy], title))
    return segments


def layer_ticks(layers: int) -> list[tuple[float, str]]:
    """The layer numbers under a strip, each after its position in percent of the width."""
    step = max(1, math.ceil(layers / 60)) * 5
    return [(100 * (i + 0.5) / layers, str(i)) for i in range(0, layers, step)]
