"""The drift of the residual stream: distance from the base's stream after each layer, by arm."""

from collections.abc import Iterable, Sequence

from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.contracts.evaluation import ARMS, Arm
from layerwright.tasks.contracts.items import ItemResult
from layerwright.tasks.report.formats import MISSING, number
from layerwright.tasks.report.lines import LayerLine, layer_panel
from layerwright.tasks.report.profile_figures import ProfileChart, Table

METRIC, LAYER = "stream_drift.", "layer "
HELP = "distance over the base's norm; 0 is unchanged"


class LayerDrift(Contract):
    """One arm's drift on one text, by layer; None if it is not a finite number."""

    text: str
    arm: Arm
    values: tuple[float | None, ...]


def layer_drifts(items: Iterable[ItemResult]) -> tuple[LayerDrift, ...]:
    """The drift from all metrics ``stream_drift.<text>``, whose items are layers."""
    by_arm: dict[tuple[str, Arm], dict[int, float | None]] = {}
    for item in items:
        if item.metric.startswith(METRIC):
            values = by_arm.setdefault((item.metric.removeprefix(METRIC), item.arm), {})
            values[int(item.item.removeprefix(LAYER))] = item.value
    return tuple(
        LayerDrift(text=text, arm=arm, values=tuple(values[layer] for layer in sorted(values)))
        for (text, arm), values in by_arm.items()
    )


def drift_figures(drifts: Sequence[LayerDrift]) -> list[ProfileChart]:
    """One panel per text, with one line per arm."""
    return [
        _figure(text, [drift for drift in drifts if drift.text == text])
        for text in dict.fromkeys(drift.text for drift in drifts)
    ]


def _figure(text: str, drifts: Sequence[LayerDrift]) -> ProfileChart:
    ordered = sorted(drifts, key=lambda drift: ARMS.index(drift.arm))
    lines = [LayerLine(drift.arm, drift.arm, list(drift.values)) for drift in ordered]
    rows = [
        [str(layer), *(MISSING if v is None else number(v) for v in values)]
        for layer, values in enumerate(zip(*(drift.values for drift in ordered), strict=True))
    ]
    panel = layer_panel(f"Drift of the stream: {text}", HELP, lines)
    return ProfileChart("lines", panel, Table(["Layer", *(drift.arm for drift in ordered)], rows))
