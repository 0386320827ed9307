"""ShortGPT's rule: convert the blocks with the least influence (arXiv 2403.03853)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from layerwright.tasks.choose.base import Problem
from layerwright.tasks.choose.ranking import Ranked, Ranking, ranked_by
from layerwright.tasks.contracts.profile import LayerProfile


class ShortGpt(Ranking):
    """Order the layers by block influence, smallest first, and convert the first of them.

    Block influence (arXiv 2403.03853, eq. 1) is 1 minus the mean cosine of a block's input and
    output. The rule assumes that a block which hardly changes the direction of the residual stream
    is redundant. Ties go to the lower layer.
    """

    name: ClassVar[str] = "shortgpt"

    def order(self, problem: Problem, layers: Sequence[LayerProfile]) -> list[Ranked]:
        return ranked_by(
            lambda layer: problem.score(layer, "block_influence", "block_influence"),
            layers,
            "block influence {score:.4f}, {rank}",
        )
