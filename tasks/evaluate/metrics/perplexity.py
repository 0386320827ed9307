"""Perplexity of each arm, and the candidate's relative to the base's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from layerwright.tasks.contracts.evaluation import Arm
from layerwright.tasks.evaluate.arms import Arms
from layerwright.tasks.evaluate.base import Figure, Metric, TextPass
from layerwright.tasks.evaluate.scoring import scored, token_blocks


class Perplexity(Metric):
    """``perplexity.<text>`` = exp(mean NLL over the T-1 predicted positions of every row).

    The first ``rows`` rows of the text, without overlap, each on its own. The arms other than the
    base also get ``perplexity_ratio.<text>`` = exp(mean of the paired NLL differences), whose
    interval is much narrower than that of either perplexity: the tokens are the same.
    """

    name: ClassVar[str] = "perplexity"

    texts: Annotated[tuple[str, ...], Field(min_length=1)]
    rows: Annotated[int, Field(gt=0)] = 8
    row_tokens: Annotated[int, Field(gt=1)] = 1024

    def names(self) -> tuple[str, ...]:
        return tuple(
            f"{kind}.{t}" for t in self.texts for kind in ("perplexity", "perplexity_ratio")
        )

    def passes(self) -> tuple[TextPass, ...]:
        return tuple(TextPass(text, self.rows, self.row_tokens) for text in self.texts)

    def measure(self, arms: Arms) -> Iterator[Figure]:
        for wanted in self.passes():
            base = arms.passed("base", wanted).nll.astype(np.float64)
            for arm in arms.names:
                nll = arms.passed(arm, wanted).nll.astype(np.float64)
                yield _exponential(f"perplexity.{wanted.text}", arm, nll, arms, "perplexity")
                if arm != "base":
                    yield _exponential(
                        f"perplexity_ratio.{wanted.text}", arm, nll - base, arms, "ratio"
                    )


def _exponential(metric: str, arm: Arm, nats: np.ndarray, arms: Arms, unit: str) -> Figure:
    """exp(mean) of nats (rows, T-1), from blocks of tokens."""
    lost = (~np.isfinite(nats)).sum()
    return scored(
        metric,
        arm,
        token_blocks(nats),
        unit=unit,
        higher_is_better=False,
        seed=arms.seed_of(metric),
        aggregate="exp_mean",
        detail=f"{nats.shape[0]} rows of {nats.shape[1] + 1} tokens",
        not_finite=f"{lost:,} of {nats.size:,} token losses are not finite"
        if lost
        else "the perplexity is too large to be a number",
    )
