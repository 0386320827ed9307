"""Convert the most linear blocks first (arXiv 2405.12250)."""

from typing import Literal

from layerwright.tasks.choose.base import Problem
from layerwright.tasks.choose.ranking import Ranking
from layerwright.tasks.contracts.profile import LayerProfile


class MostLinear(Ranking):
    """Order the layers by linearity, highest first, and convert the first of them.

    arXiv 2405.12250 (section 5) removes these blocks, or replaces them with linear maps. The paper
    measures on all tokens, as the profiler does with ``massive: null``; by default the profiler
    excludes first, BOS and massive tokens.
    """

    name = "linearity"
    # by default the paper's; the delta's have no residual stream, which hides the error of a map
    score: Literal["linearity", "linearity_delta", "linearity_delta_held_out"] = "linearity"

    def key(self, problem: Problem, layer: LayerProfile) -> tuple[float, str]:
        score = problem.score(layer, self.score, "linearity")
        return -score, f"{self.score} {score:.4f}, {{rank}}"
