"""TRSP's order: convert the layers that stage 1 of TRSP masks first (arXiv 2505.18232)."""

from layerwright.tasks.choose.base import Problem
from layerwright.tasks.choose.ranking import Ranking
from layerwright.tasks.contracts.profile import LayerProfile


class Trsp(Ranking):
    """Convert the layers in the order in which stage 1 of TRSP masks them.

    The profiler `trsp_scale` learns a scale per layer under an L1 penalty, and repeatedly masks the
    layer with the smallest scale (arXiv 2505.18232, stage 1). Unmasked layers follow, ordered by
    their scale, so the profiler should mask as many layers as are converted.
    """

    name = "trsp"

    def key(self, problem: Problem, layer: LayerProfile) -> tuple[float, str]:
        position = problem.score(layer, "trsp_order", "trsp_scale")
        scale = problem.score(layer, "trsp_scale", "trsp_scale")
        return position, f"{{rank}} in TRSP's order: scale {scale:.4f}"
