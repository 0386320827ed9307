"""Bar charts with one bar per layer, in the colours of the layers' strategies."""

from collections.abc import Sequence
from typing import NamedTuple

from layerwright.tasks.report.formats import MISSING, number
from layerwright.tasks.report.layers import layer_ticks
from layerwright.tasks.report.scales import scale_for


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
