"""ShortGPT's rule: convert the blocks with the least influence (arXiv 2403.03853)."""

from layerwright.tasks.choose.base import Problem
from layerwright.tasks.choose.ranking import Ranking
from layerwright.tasks.contracts.profile import LayerProfile


class ShortGpt(Ranking):
    """Order the layers by block influence, smallest first, and convert the first of them.

    Block influence (arXiv 2403.03853, eq. 1) is 1 minus the mean cosine of a block's input and
    output. The rule assumes that a block which hardly changes the direction of the residual stream
    is redundant.
    """

    name = "shortgpt"

    def key(self, problem: Problem, layer: LayerProfile) -> tuple[float, str]:
        influence = problem.score(layer, "block_influence", "block_influence")
        return influence, f"block influence {influence:.4f}, {{rank}}"
