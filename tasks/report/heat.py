"""Charts over layers: heat maps, and strips with one bar per layer."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from layerwright.tasks.report.formats import MISSING, number
from layerwright.tasks.report.layers import layer_ticks
from layerwright.tasks.report.scales import Scale, scale_for

ROW = 20  # height of a row in drawing units; a column is one unit wide
PALEST = 0.06  # lowest opacity of a cell


class Heat(NamedTuple):
    """A heat map: a darker cell has a larger value. ``low``, ``high``: palest and darkest cell."""

    title: str
    help: str
    columns: int
    cells: list[tuple[int, int, float, str]]  # (x, y, opacity, tooltip)
    rows: list[tuple[float, str]]  # (middle in percent of the height, name)
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
    """A heat map over layers, from the palest cell at the smallest value to full colour at the
    largest. If one value is much larger than the others, shades follow the logarithm.

    Args:
        zero: the palest cell means zero or less.
    """
    known = [v for values in rows.values() for v in values if v is not None]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    if zero:
        low, high = 0.0, max(high, 0.0)
    shade = Scale(low, high, PALEST, 1.0, bend=scale_for(known, 0, 1, bend=True).bend)
    layers = max(len(values) for values in rows.values())
    cells = [
        (
            layer,
            ROW * index,
            shade(value) if high > low else PALEST,
            f"{name}, layer {layer}: {number(value)}",
        )
        for index, (name, values) in enumerate(rows.items())
        for layer, value in enumerate(values)
        if value is not None
    ]
    ranges = [
        f"{name}: between {number(min(measured))} and {number(max(measured))}"
        for name, values in rows.items()
        if (measured := [v for v in values if v is not None])
    ]
    return Heat(
        title=title,
        help=help + "; logarithmic shades" * bool(shade.bend),
        columns=layers,
        cells=cells,
        rows=[(100 * (i + 0.5) / len(rows), name) for i, name in enumerate(rows)],
        low=number(low) if known else MISSING,
        high=number(high) if known else MISSING,
        ticks=layer_ticks(layers),
        description="per layer: " + ("; ".join(ranges) or MISSING),
    )


class Strip(NamedTuple):
    """One bar per layer, in a drawing of one unit per layer by 100."""

    title: str
    help: str
    layers: int
    bars: list[tuple[float, float, float, float, str, str]]  # x, y, width, height, class, tooltip
    zero: float | None  # y of zero, on which bars stand; without it, dashes mark the values
    top: str
    bottom: str
    ticks: list[tuple[float, str]]
    description: str


def strip(title: str, help: str, values: Sequence[float | None], kinds: Sequence[str]) -> Strip:
    """A strip over all layers.

    Bars start at zero. If all values are close together and far from zero (for example linearity
    with the residual, 0.99 and more), bars would look equal; then dashes on a cut axis are drawn.
    """
    known = [v for v in values if v is not None]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    cut = bool(known) and low > 0 and low > 0.6 * high
    y = scale_for(known, 96, 6, zero=not cut, pad=0.0)
    zero = None if cut else y(0.0)
    bars = []
    for layer, value in enumerate(values):
        if value is None:
            continue
        at = y(value)
        top, tall = (at - 2.5, 5.0) if zero is None else (min(at, zero), max(abs(at - zero), 0.8))
        text = f"layer {layer}: {number(value)}"
        bars.append((layer + 0.14, round(top, 1), 0.72, round(tall, 1), kinds[layer], text))
    highest = list(values).index(high) if known else None
    return Strip(
        title=title,
        help=help,
        layers=len(values),
        bars=bars,
        zero=zero,
        top=number(high) if known else MISSING,
        bottom=number(low if cut or low < 0 else 0.0) if known else "",
        ticks=layer_ticks(len(values)),
        description=f"between {number(low)} and {number(high)}, highest at layer {highest}"
        if known
        else MISSING,
    )
