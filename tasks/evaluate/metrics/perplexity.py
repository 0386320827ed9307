"""Perplexity of each arm, and its ratio to the base's."""

from collections.abc import Iterator

import numpy as np

from layerwright.tasks.evaluate.arms import Arms
from layerwright.tasks.evaluate.base import Figure, RowsMetric, shown
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
                figures = {"perplexity": nll} | ({"ratio": nll - base} if arm != "base" else {})
                for unit, nats in figures.items():
                    metric = f"{'perplexity_ratio' if unit == 'ratio' else unit}.{text}"
                    invalid = (~np.isfinite(nats)).sum()
                    why = f"{invalid:,} of {nats.size:,} token losses are not finite"
                    options = {"not_finite": why if invalid else "the perplexity overflows"}
                    yield self.over_tokens(
                        arms, arm, metric, nats, unit, aggregate="exp_mean", **options
                    )
