"""LightTransfer's rule: the laziest layers are converted (arXiv 2410.13846, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from layerwright.tasks.choose.base import Problem
from layerwright.tasks.choose.ranking import Ranked, Ranking, by_figure
from layerwright.tasks.contracts.profile import LayerProfile


class LightTransfer(Ranking):
    """Order the layers by lazy ratio, highest first, and convert the first of them.

    The lazy ratio is the share of attention mass on the sinks and the recent window, so 1 - ratio
    bounds the error of dropping the rest (theorem 3.1). Ties go to the lower layer.
    """

    name: ClassVar[str] = "lightransfer"

    def order(self, problem: Problem, layers: Sequence[LayerProfile]) -> list[Ranked]:
        return by_figure(
            layers,
            lambda layer: problem.score(layer, "lazy_ratio", "laziness"),
            "laziest {place}: lazy ratio {figure:.3f}",
            largest_first=True,
        )
