"""TRSP's order: convert the layers that stage 1 of TRSP masks first (arXiv 2505.18232)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from layerwright.tasks.choose.base import Problem, ordinal
from layerwright.tasks.choose.ranking import Ranked, Ranking
from layerwright.tasks.contracts.profile import LayerProfile

PROFILER = "trsp_scale"


class Trsp(Ranking):
    """Convert the layers in the order in which stage 1 of TRSP masks them.

    The profiler `trsp_scale` learns a scale per layer under an L1 penalty, and repeatedly masks the
    layer with the smallest scale (arXiv 2505.18232, stage 1). Unmasked layers follow, ordered by
    their scale, so the profiler should mask as many layers as are converted.
    """

    name: ClassVar[str] = "trsp"

    def order(self, problem: Problem, layers: Sequence[LayerProfile]) -> list[Ranked]:
        position = {p.layer: problem.score(p, "trsp_order", PROFILER) for p in layers}
        ordered = sorted(layers, key=lambda layer: (position[layer.layer], layer.layer))
        return [
            Ranked(
                layer,
                f"{ordinal(rank)} of {len(layers)} in TRSP's order: "
                f"scale {problem.score(layer, 'trsp_scale', PROFILER):.4f}",
            )
            for rank, layer in enumerate(ordered, 1)
        ]
