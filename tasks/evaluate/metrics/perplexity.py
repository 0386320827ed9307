"""Perplexity of each arm, and its ratio to the base's."""

from collections.abc import Iterator

import numpy as np

from layerwright.tasks.contracts.evaluation import Arm
from layerwright.tasks.evaluate.arms import Arms
from layerwright.tasks.evaluate.base import Figure, RowsMetric, scored, shown, token_blocks
from layerwright.tasks.evaluate.passes import TextPass


class Perplexity(RowsMetric):
    """``perplexity.<text>`` = exp(mean NLL over the T-1 predicted positions of every row).

    It uses the first ``rows`` rows of the text, which do not overlap and have no common context.
    Other arms than the base also get ``perplexity_ratio.<text>`` = exp(mean of the paired NLL
    differences). Its interval is much narrower than that of a perplexity, because the tokens are
    the same.
    """

    name = "perplexity"
    families = ("perplexity", "perplexity_ratio")
    presentation = {
        "perplexity": shown("Perplexity", "exp of the mean NLL per token; lower is better"),
        "perplexity_ratio": shown(
            "Perplexity, ratio to base", "1 is unchanged; lower is better", reference=1.0
        ),
    }

    def passes(self) -> tuple[TextPass, ...]:
        return self.row_passes()

    def measure(self, arms: Arms) -> Iterator[Figure]:
        for text_pass in self.passes():
            text = text_pass.text
            base = arms.text_scores("base", text_pass).nll.astype(np.float64)
            for arm in arms.names:
                nll = arms.text_scores(arm, text_pass).nll.astype(np.float64)
                yield self._exp_mean(f"perplexity.{text}", arm, nll, arms, "perplexity")
                if arm != "base":
                    ratio = f"perplexity_ratio.{text}"
                    yield self._exp_mean(ratio, arm, nll - base, arms, "ratio")

    def _exp_mean(self, metric: str, arm: Arm, nats: np.ndarray, arms: Arms, unit: str) -> Figure:
        """exp(mean) of ``nats`` (rows, T-1), over blocks of tokens."""
        invalid = (~np.isfinite(nats)).sum()
        return scored(
            metric,
            arm,
            token_blocks(nats),
            unit,
            arms.seed_of(metric),
            aggregate="exp_mean",
            detail=self.extent,
            not_finite=f"{invalid:,} of {nats.size:,} token losses are not finite"
            if invalid
            else "the perplexity overflows",
        )
