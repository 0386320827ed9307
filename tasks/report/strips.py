"""Strips: one figure per layer, in the colours of what the layers became."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.contracts import ConversionPlan, ModelProfile
from tasks.report.formats import MISSING, number, options
from tasks.report.layers import looks
from tasks.report.scales import scale_for

SCORES = {
    "lazy_ratio": ("Lazy ratio", "attention mass on the sinks and the recent window; 1 is laziest"),
    "linearity": ("Linearity, with the residual", "in-sample fit of a linear map to the layer"),
    "linearity_delta": ("Linearity, without the residual", "in-sample fit to what the layer adds"),
    "linearity_delta_held_out": (
        "Linearity, without the residual, held out",
        "ridge fit scored on tokens it has not seen; below 0 is worse than the mean",
    ),
}


@dataclass(frozen=True)
class Strip:
    """One figure per layer. Bars stand on ``zero``; a strip without zero shows dashes.

    ``bars``: x, y, width, height in a drawing of one unit per layer by 100; class; tooltip.
    """

    title: str
    help: str
    layers: int
    bars: list[tuple[float, float, float, float, str, str]]
    zero: float | None
    top: str
    bottom: str
    ticks: list[tuple[float, str]]
    description: str


def strip(title: str, help: str, values: Sequence[float | None], kinds: Sequence[str]) -> Strip:
    """A strip over all layers.

    Bars begin at zero; where all values lie close together and far from zero (linearity with the
    residual: 0.99 and more) bars would all look alike, so dashes on a cut axis are shown.
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
        bars.append(
            (
                layer + 0.14,
                round(top, 1),
                0.72,
                round(tall, 1),
                kinds[layer],
                f"layer {layer}: {number(value)}",
            )
        )
    highest = list(values).index(high) if known else None
    every = max(1, math.ceil(len(values) / 60)) * 5
    return Strip(
        title=title,
        help=help,
        layers=len(values),
        bars=bars,
        zero=zero,
        top=number(high) if known else MISSING,
        bottom=number(low if cut or low < 0 else 0.0) if known else "",
        ticks=[(100 * (i + 0.5) / len(values), str(i)) for i in range(0, len(values), every)],
        description=f"between {number(low)} and {number(high)}, highest at layer {highest}"
        if known
        else MISSING,
    )


def strips(profile: ModelProfile, plan: ConversionPlan) -> list[Strip]:
    """Every score and every damage that the profile holds, over all layers of the plan."""
    look, summary = looks(plan), plan.summary()
    kinds = [look[summary[str(layer)]].colour for layer in range(plan.layers)]
    by_layer = {entry.layer: entry for entry in profile.layers}
    entries = [by_layer.get(layer) for layer in range(plan.layers)]
    names = [name for entry in profile.layers for name in entry.scores]
    ordered = [name for name in SCORES if name in names]
    ordered += [name for name in dict.fromkeys(names) if name not in SCORES]
    found = []
    for name in ordered:
        title, help = SCORES.get(name, (name, "as its profiler defines it"))
        found.append(
            strip(title, help, [e.scores.get(name) if e else None for e in entries], kinds)
        )
    specs = {d.strategy.model_dump_json(): d.strategy for e in profile.layers for d in e.damage}
    for spec in specs.values():
        damages = [e.damage_of(spec) if e else None for e in entries]
        what = f"{spec.name}, {options(spec.options)}" if spec.options else spec.name
        found.append(
            strip(
                "Sensitivity: language",
                f"rise of NLL, nats per token; {what}",
                [d.language_nats if d else None for d in damages],
                kinds,
            )
        )
        found.append(
            strip(
                "Sensitivity: recall",
                f"fall of the key's log-probability, nats; {what}",
                [d.recall_nats if d else None for d in damages],
                kinds,
            )
        )
    return found
