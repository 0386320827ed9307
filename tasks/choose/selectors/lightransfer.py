"""LightTransfer's rule: convert the layers with the highest lazy ratio (arXiv 2410.13846)."""

from layerwright.tasks.choose.base import Problem
from layerwright.tasks.choose.ranking import Ranking
from layerwright.tasks.contracts.profile import LayerProfile


class LightTransfer(Ranking):
    """Order the layers by lazy ratio, highest first, and convert the first of them.

    The lazy ratio is the share of attention on the sinks and the recent window, so 1 - ratio bounds
    the error of dropping the other keys (arXiv 2410.13846, theorem 3.1).
    """

    name = "lightransfer"

    def key(self, problem: Problem, layer: LayerProfile) -> tuple[float, str]:
        ratio = problem.score(layer, "lazy_ratio", "laziness")
        return -ratio, f"lazy ratio {ratio:.3f}, {{rank}}"
