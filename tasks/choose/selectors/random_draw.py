"""Layers drawn by lot: what a rule has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field

from layerwright.tasks.choose.base import Problem, ordinal
from layerwright.tasks.choose.ranking import Ranked, Ranking
from layerwright.tasks.contracts.profile import LayerProfile


class Random(Ranking):
    """Convert layers drawn without replacement, by the recipe's seed and the number of the draw.

    Attributes:
        draw: another number, another draw from the same seed.
    """

    name: ClassVar[str] = "random"

    draw: int = Field(default=0, ge=0)

    def order(self, problem: Problem, layers: Sequence[LayerProfile]) -> list[Ranked]:
        # all layers are drawn, so that an impossible one changes the others' order in nothing
        lots = np.random.default_rng([problem.seed, self.draw]).permutation(len(problem.layers))
        place = {int(layer): rank for rank, layer in enumerate(lots)}
        ordered = sorted(layers, key=lambda layer: place[layer.layer])
        return [
            Ranked(layer, f"drawn {ordinal(rank)} of {len(layers)} (draw {self.draw})")
            for rank, layer in enumerate(ordered, 1)
        ]
