"""The layer map and the table of reasons: which layer became what, and why."""

from __future__ import annotations

import ast
from collections import Counter
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path

from tasks.contracts import ConversionPlan, PlanItem
from tasks.report.formats import data_size, number, options

# these look the same in every report; other strategies take the colours that are left, in order
COLOURS = {"keep": 0, "streaming": 1}
SPARE = range(2, 9)


@dataclass(frozen=True)
class Look:
    """How a strategy appears: a letter beside the colour, so that colour is never needed."""

    strategy: str
    letter: str
    colour: str
    layers: int

    @property
    def meaning(self) -> str:
        return described(self.strategy)


@cache
def described(strategy: str) -> str:
    """The first line that a strategy says of itself, from its source; empty if there is none.

    Not imported: strategies need torch, and the page of a cached run is there within a second.
    """
    spec = find_spec(f"tasks.strategies.{strategy}")
    if spec is None or spec.origin is None:
        return ""
    body = ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body
    classes = [node for node in body if isinstance(node, ast.ClassDef)]
    text = ast.get_docstring(classes[0]) if classes else ""
    return (text or "").split("\n")[0].replace("`", "")


@dataclass(frozen=True)
class Cell:
    layer: int
    look: Look
    title: str


@dataclass(frozen=True)
class ItemRow:
    """One row of the table of reasons."""

    layers: str
    look: Look
    params: str
    language: str
    recall: str
    kv: str
    reason: str


def item_layers(item: PlanItem) -> str:
    last = item.stop - 1
    return str(item.start) if item.start == last else f"{item.start} to {last}"


def looks(plan: ConversionPlan) -> dict[str, Look]:
    """A colour and a letter for each strategy of the plan; letters are never shared."""
    counts = Counter(plan.summary().values())
    names = sorted(counts, key=lambda name: (COLOURS.get(name, 99), name))
    taken: dict[str, str] = {}
    for name in names:
        letters = [name[:1].upper(), name[:2].capitalize(), name[:3].capitalize(), name]
        taken[name] = next(letter for letter in letters if letter not in taken.values())
    spare = cycle(SPARE)
    return {
        name: Look(
            name,
            taken[name],
            f"s{COLOURS[name] if name in COLOURS else next(spare)}",
            counts[name],
        )
        for name in names
    }


def map_columns(layers: int) -> int:
    """Cells in a row of the map on a wide screen, so that the last row is as full as can be."""
    return min((16, 15, 20, 18, 14, 12), key=lambda columns: -layers % columns)


def layer_map(plan: ConversionPlan) -> list[Cell]:
    look = looks(plan)
    cells = []
    for item in plan.items:
        what = item.strategy + (f" ({options(item.params)})" if item.params else "")
        span = f", one with layers {item_layers(item)}" if item.stop - item.start > 1 else ""
        for layer in range(item.start, item.stop):
            title = f"layer {layer}: {what}{span}" + (f". {item.reason}" if item.reason else "")
            cells.append(Cell(layer, look[item.strategy], title))
    return cells


def item_rows(plan: ConversionPlan) -> list[ItemRow]:
    look = looks(plan)
    return [
        ItemRow(
            layers=item_layers(item),
            look=look[item.strategy],
            params=options(item.params),
            language=number(item.predicted_language_nats, signed=True),
            recall=number(item.predicted_recall_nats, signed=True),
            kv=data_size(item.predicted_kv_bytes),
            reason=item.reason,
        )
        for item in plan.items
    ]
