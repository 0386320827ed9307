"""TRSP's order: the layers whose learnt scale falls first go first (arXiv 2505.18232)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from layerwright.tasks.choose.base import Problem, ordinal
from layerwright.tasks.choose.ranking import Ranked, Ranking
from layerwright.tasks.contracts.profile import LayerProfile

PROFILER = "trsp_scale"


class Trsp(Ranking):
    """Convert the layers in the order in which stage 1 of TRSP masks them.

    The profiler `trsp_scale` learns a scale per layer under an L1 penalty and masks the layer of
    the smallest one, again and again (arXiv 2505.18232, stage 1). Layers that it did not come to
    mask follow by their scale: let it mask as many as are converted.
    """

    name: ClassVar[str] = "trsp"

    def order(self, problem: Problem, layers: Sequence[LayerProfile]) -> list[Ranked]:
        places = {p.layer: problem.score(p, "trsp_order", PROFILER) for p in layers}
        ordered = sorted(layers, key=lambda layer: (places[layer.layer], layer.layer))
        return [
            Ranked(
                layer,
                f"{ordinal(rank)} of {len(layers)} in TRSP's order: "
                f"scale {problem.score(layer, 'trsp_scale', PROFILER):.4f}",
            )
            for rank, layer in enumerate(ordered, 1)
        ]
