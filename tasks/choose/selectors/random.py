"""Convert random layers: the baseline that a rule has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field

from layerwright.tasks.choose.base import Problem, ordinal
from layerwright.tasks.choose.ranking import Ranked, Ranking
from layerwright.tasks.contracts.profile import LayerProfile


class Random(Ranking):
    """Convert layers drawn without replacement, by the recipe's seed and ``draw``.

    Attributes:
        draw: number of the draw; each number gives another draw from the same seed.
    """

    name: ClassVar[str] = "random"

    draw: int = Field(default=0, ge=0)

    def order(self, problem: Problem, layers: Sequence[LayerProfile]) -> list[Ranked]:
        # draw all layers, so that an excluded layer does not change the order of the others
        drawn = np.random.default_rng([problem.seed, self.draw]).permutation(len(problem.layers))
        position = {int(layer): rank for rank, layer in enumerate(drawn)}
        ordered = sorted(layers, key=lambda layer: position[layer.layer])
        return [
            Ranked(layer, f"drawn {ordinal(rank)} of {len(layers)} (draw {self.draw})")
            for rank, layer in enumerate(ordered, 1)
        ]
