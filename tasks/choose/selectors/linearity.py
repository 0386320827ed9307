"""The most linear blocks first (arXiv 2405.12250)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from layerwright.tasks.choose.base import Problem
from layerwright.tasks.choose.ranking import Ranked, Ranking, by_figure
from layerwright.tasks.contracts.profile import LayerProfile


class MostLinear(Ranking):
    """Order the layers by linearity, highest first, and convert the first of them.

    The blocks that arXiv 2405.12250 (section 5) removes, or replaces by maps. Ties go to the lower
    layer. The paper measures on all tokens: that is the profiler's ``massive: null``; by default
    it leaves out first, BOS and massive tokens.

    Attributes:
        score: which of the scores of the profiler `linearity`; the paper's by default. On the
            delta, and held out, the residual stream does not hide what a map would lose.
    """

    name: ClassVar[str] = "linearity"

    score: Literal["linearity", "linearity_delta", "linearity_delta_held_out"] = "linearity"

    def order(self, problem: Problem, layers: Sequence[LayerProfile]) -> list[Ranked]:
        return by_figure(
            layers,
            lambda layer: problem.score(layer, self.score, "linearity"),
            f"most linear {{place}}: {self.score} {{figure:.4f}}",
            largest_first=True,
        )
