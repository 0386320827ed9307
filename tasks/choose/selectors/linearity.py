"""Convert the most linear blocks first (arXiv 2405.12250)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from layerwright.tasks.choose.base import Problem
from layerwright.tasks.choose.ranking import Ranked, Ranking, ranked_by
from layerwright.tasks.contracts.profile import LayerProfile


class MostLinear(Ranking):
    """Order the layers by linearity, highest first, and convert the first of them.

    arXiv 2405.12250 (section 5) removes these blocks, or replaces them with linear maps. Ties go to
    the lower layer. The paper measures on all tokens, as the profiler does with ``massive: null``;
    by default the profiler excludes first, BOS and massive tokens.

    Attributes:
        score: the score of the profiler `linearity` to use; the default is the paper's. The scores
            of the delta do not include the residual stream, which hides the error of a map.
    """

    name: ClassVar[str] = "linearity"

    score: Literal["linearity", "linearity_delta", "linearity_delta_held_out"] = "linearity"

    def order(self, problem: Problem, layers: Sequence[LayerProfile]) -> list[Ranked]:
        return ranked_by(
            lambda layer: problem.score(layer, self.score, "linearity"),
            layers,
            f"{self.score} {{score:.4f}}, {{rank}}",
            largest_first=True,
        )
