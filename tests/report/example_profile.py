"""A profile with every kind of figure: spans, runs, heads, several strategies, probes."""

import math

from report.example_bundle import GEOMETRY, digest

from layerwright.tasks.contracts.base import Spec
from layerwright.tasks.contracts.profile import Damage, LayerProfile, ModelProfile

STREAMING = Spec(name="streaming", sinks=4, window=252)
SHORT = Spec(name="streaming", sinks=4, window=28)
REMOVE = Spec(name="remove")
PROBES = ("passkey", "multi_key", "associative", "copying")


def rich_profile(layers: int = 12) -> ModelProfile:
    """Layer 3 cannot be removed; damage of layer 5 is a thousand times that of the others."""
    return ModelProfile(
        model_sha256=digest("base"),
        text_sha256=digest("calibration"),
        tokens=4096,
        layers=tuple(
            LayerProfile(layer=i, scores=_scores(i, layers), damage=_damages(i, layers))
            for i in range(layers)
        ),
        geometry=GEOMETRY,
    )


def _scores(i: int, layers: int) -> dict[str, float]:
    near = 0.3 + 0.4 * math.sin(i / layers * math.pi)
    scores = {
        "lazy_ratio": near + 0.1,
        "linearity": 0.99 + 0.0005 * i,
        "linearity_delta": 0.5 + 0.02 * i,
        "linearity_delta_held_out": -3.0 if i == 0 else 0.3,
        "block_influence": 0.3 / (1 + i),
        "attention_entropy": 2 + 0.1 * i,
        "attention_distance": 40.0 + 5 * i,
        "sink_mass": 0.5,
    }
    for span in (128, 32, 64):
        scores[f"covered_mass_{span}"] = min(1.0, near + span / 400)
        scores[f"covered_mass_{span}.head_0"] = 0.123456
    for n in (1, 2, 4):
        if i + n <= layers:
            scores[f"angular_distance_{n}"] = 0.1 * n
    return scores


def _damages(i: int, layers: int) -> tuple[Damage, ...]:
    size = 2.0 if i == 5 else 0.002 * (1 + i % 3)
    made = [
        Damage(
            strategy=spec,
            language_nats=size * factor,
            recall_nats=3 * size * factor,
            kl_nats=None if spec == SHORT else size,
            probes={name: size * (k + 1) - 0.001 for k, name in enumerate(PROBES)},
        )
        for spec, factor in ((STREAMING, 1.0), (SHORT, 2.0))
    ]
    if i != 3:
        made += [
            Damage(strategy=REMOVE, language_nats=n * size, recall_nats=n * size, layers=n)
            for n in (1, 2)
            if i + n <= layers
        ]
    return tuple(made)
