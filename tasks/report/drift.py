"""How far each arm's residual stream is from the base's behind each layer, as a line for each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.contracts.evaluation import ARMS, Arm
from layerwright.tasks.contracts.items import ItemResult
from layerwright.tasks.report.formats import MISSING, number
from layerwright.tasks.report.lines import LayerLine, layer_panel
from layerwright.tasks.report.profile_figures import Figure, Table

METRIC, LAYER = "stream_drift.", "layer "
HELP = "of the base's norm; 0 is the base itself"


class LayerDrift(Contract):
    """One arm on one text: the distance behind each layer; None where it is no number."""

    text: str
    arm: Arm
    values: tuple[float | None, ...]


def layer_drifts(items: Iterable[ItemResult]) -> tuple[LayerDrift, ...]:
    """Those of every ``stream_drift.<text>``, whose items are the layers."""
    found: dict[tuple[str, Arm], dict[int, float | None]] = {}
    for item in items:
        if item.metric.startswith(METRIC):
            one = found.setdefault((item.metric.removeprefix(METRIC), item.arm), {})
            one[int(item.item.removeprefix(LAYER))] = item.value
    return tuple(
        LayerDrift(text=text, arm=arm, values=tuple(one[layer] for layer in sorted(one)))
        for (text, arm), one in found.items()
    )


def drift_figures(drifts: Sequence[LayerDrift]) -> list[Figure]:
    """A panel for each text, the arms as lines in it."""
    return [
        _figure(text, [one for one in drifts if one.text == text])
        for text in dict.fromkeys(one.text for one in drifts)
    ]


def _figure(text: str, drifts: Sequence[LayerDrift]) -> Figure:
    ordered = sorted(drifts, key=lambda one: ARMS.index(one.arm))
    lines = [LayerLine(one.arm, one.arm, list(one.values)) for one in ordered]
    rows = [
        [str(layer), *(MISSING if v is None else number(v) for v in values)]
        for layer, values in enumerate(zip(*(one.values for one in ordered), strict=True))
    ]
    panel = layer_panel(f"Distance of the stream: {text}", HELP, lines)
    return Figure("lines", panel, Table(["Layer", *(one.arm for one in ordered)], rows))
