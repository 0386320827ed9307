"""LightTransfer's rule: convert the layers with the highest lazy ratio (arXiv 2410.13846)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from layerwright.tasks.choose.base import Problem
from layerwright.tasks.choose.ranking import Ranked, Ranking, ranked_by
from layerwright.tasks.contracts.profile import LayerProfile


class LightTransfer(Ranking):
    """Order the layers by lazy ratio, highest first, and convert the first of them.

    The lazy ratio is the share of attention on the sinks and the recent window, so 1 - ratio bounds
    the error of dropping the other keys (arXiv 2410.13846, theorem 3.1). Ties go to the lower
    layer.
    """

    name: ClassVar[str] = "lightransfer"

    def order(self, problem: Problem, layers: Sequence[LayerProfile]) -> list[Ranked]:
        return ranked_by(
            lambda layer: problem.score(layer, "lazy_ratio", "laziness"),
            layers,
            "lazy ratio {score:.3f}, {rank}",
            largest_first=True,
        )
