"""Convert random layers: the baseline that a rule has to beat."""

import numpy as np
from pydantic import Field

from layerwright.tasks.choose.base import Problem
from layerwright.tasks.choose.ranking import Ranking
from layerwright.tasks.contracts.profile import LayerProfile


class Random(Ranking):
    """Convert layers drawn without replacement, by the recipe's seed and ``draw``."""

    name = "random"
    draw: int = Field(default=0, ge=0)  # each number is another draw from the same seed

    def key(self, problem: Problem, layer: LayerProfile) -> tuple[float, str]:
        # draw all layers, so that an excluded layer does not change the order of the others
        drawn = np.random.default_rng([problem.seed, self.draw]).permutation(len(problem.layers))
        return float(np.argsort(drawn)[layer.layer]), f"drawn {{rank}} (draw {self.draw})"
