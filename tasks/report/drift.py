"""The drift of the residual stream: distance from the base's stream after each layer, by arm."""

from collections.abc import Iterable, Sequence

from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.contracts.evaluation import ARMS, Arm
from layerwright.tasks.contracts.items import ItemResult
from layerwright.tasks.report.formats import MISSING
from layerwright.tasks.report.lines import LayerLine, layer_panel
from layerwright.tasks.report.profile_figures import ProfileChart, table

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
    by_arm = {drift.arm: drift.values for drift in drifts}
    columns: dict[str, Sequence[float | None]] = {a: by_arm[a] for a in ARMS if a in by_arm}
    lines = [LayerLine(arm, arm, values) for arm, values in columns.items()]
    panel = layer_panel(f"Drift of the stream: {text}", HELP, lines)
    return ProfileChart("lines", panel, table(columns, MISSING))
