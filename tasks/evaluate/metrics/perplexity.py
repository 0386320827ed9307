"""Perplexity of each arm, and its ratio to the base's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from layerwright.tasks.contracts.evaluation import Arm, Presentation
from layerwright.tasks.evaluate.arms import Arms
from layerwright.tasks.evaluate.base import Figure, Metric
from layerwright.tasks.evaluate.scoring import scored, token_blocks
from layerwright.tasks.evaluate.texts import TextPass


class Perplexity(Metric):
    """``perplexity.<text>`` = exp(mean NLL over the T-1 predicted positions of every row).

    It uses the first ``rows`` rows of the text, which do not overlap and have no common context.
    Other arms than the base also get ``perplexity_ratio.<text>`` = exp(mean of the paired NLL
    differences). Its interval is much narrower than that of a perplexity, because the tokens are
    the same.
    """

    name: ClassVar[str] = "perplexity"
    presentation: ClassVar[Mapping[str, Presentation]] = {
        "perplexity": Presentation(
            label="Perplexity",
            part="quality",
            help="exp of the mean NLL per token; lower is better",
        ),
        "perplexity_ratio": Presentation(
            label="Perplexity, ratio to base",
            part="quality",
            help="1 is unchanged; lower is better",
            reference=1.0,
        ),
    }

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
        for text_pass in self.passes():
            text = text_pass.text
            base = arms.text_scores("base", text_pass).nll.astype(np.float64)
            for arm in arms.names:
                nll = arms.text_scores(arm, text_pass).nll.astype(np.float64)
                yield _exp_mean(f"perplexity.{text}", arm, nll, arms, "perplexity")
                if arm != "base":
                    yield _exp_mean(f"perplexity_ratio.{text}", arm, nll - base, arms, "ratio")


def _exp_mean(metric: str, arm: Arm, nats: np.ndarray, arms: Arms, unit: str) -> Figure:
    """exp(mean) of ``nats`` (rows, T-1), over blocks of tokens."""
    invalid = (~np.isfinite(nats)).sum()
    return scored(
        metric,
        arm,
        token_blocks(nats),
        unit=unit,
        higher_is_better=False,
        seed=arms.seed_of(metric),
        aggregate="exp_mean",
        detail=f"{nats.shape[0]} rows of {nats.shape[1] + 1} tokens",
        not_finite=f"{invalid:,} of {nats.size:,} token losses are not finite"
        if invalid
        else "the perplexity overflows",
    )
