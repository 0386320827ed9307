"""Heat strips: a figure over layers or lengths for each of several sizes or kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from layerwright.tasks.report.formats import MISSING, number
from layerwright.tasks.report.layers import layer_ticks
from layerwright.tasks.report.scales import Scale, scale_for

ROW = 20  # height of a row in the drawing; a column is one unit wide
PALEST = 0.06  # opacity of a cell


@dataclass(frozen=True)
class Heat:
    """Rows of cells, the darker the greater.

    ``cells``: x, y, opacity, tooltip; what was not measured has none. ``rows``: name and place of
    its middle, in percent of the height.
    """

    title: str
    help: str
    columns: int
    cells: list[tuple[int, int, float, str]]
    rows: list[tuple[float, str]]
    low: str
    high: str
    ticks: list[tuple[float, str]]
    description: str

    @property
    def height(self) -> int:
        return ROW * len(self.rows)


def heat(
    title: str, help: str, rows: Mapping[str, Sequence[float | None]], *, zero: bool = False
) -> Heat:
    """Cells from the palest at the least value (``zero``: at zero and below) to full colour at the
    greatest; where one value would outshine all others, shades grow with the logarithm."""
    known = [v for values in rows.values() for v in values if v is not None]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    if zero:
        low, high = 0.0, max(high, 0.0)
    shade = Scale(low, high, PALEST, 1.0, bend=scale_for(known, 0, 1, bend=True).bend)
    layers = max(len(values) for values in rows.values())
    cells = [
        (
            layer,
            ROW * place,
            shade(value) if high > low else PALEST,
            f"{name}, layer {layer}: {number(value)}",
        )
        for place, (name, values) in enumerate(rows.items())
        for layer, value in enumerate(values)
        if value is not None
    ]
    described = [
        f"{name}: between {number(min(some))} and {number(max(some))}"
        for name, values in rows.items()
        if (some := [v for v in values if v is not None])
    ]
    return Heat(
        title=title,
        help=help + "; shades grow with the logarithm" * bool(shade.bend),
        columns=layers,
        cells=cells,
        rows=[(100 * (i + 0.5) / len(rows), name) for i, name in enumerate(rows)],
        low=number(low) if known else MISSING,
        high=number(high) if known else MISSING,
        ticks=layer_ticks(layers),
        description="per layer: " + ("; ".join(described) or MISSING),
    )
