"""KL divergence of an arm's predictions from the base's, and top-1 agreement."""

from collections.abc import Iterator

import numpy as np

from layerwright.tasks.contracts.evaluation import Arm
from layerwright.tasks.evaluate.arms import Arms
from layerwright.tasks.evaluate.base import Figure, Item, RowsMetric, measured, results, shown
from layerwright.tasks.evaluate.passes import TextPass


class Divergence(RowsMetric):
    """KL(base || arm) per predicted token, and agreement of the most likely token.

    ``kl_mean.<text>`` and ``kl_p99.<text>`` in nats, ``top1_agreement.<text>`` as a share. The base
    has no such figures, so a gate compares them by ``value``.
    """

    name = "divergence"
    families = ("kl_mean", "kl_p99", "top1_agreement")
    presentation = {
        "top1_agreement": shown(
            "Top-1 agreement", "share of tokens with the base's most likely token"
        ),
        "kl_mean": shown(
            "KL to base, mean", "nats per token; 0 means identical to the base", log=True
        ),
        "kl_p99": shown("KL to base, 99th percentile", "nats; the worst 1 % of tokens", log=True),
    }
    divergence = True

    def passes(self) -> tuple[TextPass, ...]:
        return self.row_passes()

    def measure(self, arms: Arms) -> Iterator[Figure]:
        for text_pass in self.passes():
            for arm in arms.names:
                if arm != "base":
                    yield from self._compare(arms, arm, text_pass)

    def _compare(self, arms: Arms, arm: Arm, text_pass: TextPass) -> Iterator[Figure]:
        scores = arms.text_scores(arm, text_pass)
        assert scores.kl is not None  # the pass has divergence=True
        assert scores.agrees is not None
        kl, agrees = scores.kl.astype(np.float64), scores.agrees.astype(np.float64)
        invalid = ~np.isfinite(kl)
        agrees[invalid] = np.nan  # the argmax of NaN logits has no meaning
        not_finite = f"the divergence is not finite on {invalid.sum():,} of {kl.size:,} tokens"
        for name, values, unit in (("kl_mean", kl, "nats"), ("top1_agreement", agrees, "share")):
            metric, better = f"{name}.{text_pass.text}", name == "top1_agreement"
            options = {"higher_is_better": better, "not_finite": not_finite}
            yield self.over_tokens(arms, arm, metric, values, unit, **options)
        worst = [Item(f"row {row}", float(np.quantile(v, 0.99))) for row, v in enumerate(kl)]
        yield measured(
            metric := f"kl_p99.{text_pass.text}",
            arm,
            float(np.quantile(kl, 0.99)),
            "nats",
            count=kl.size,
            items=results(metric, arm, worst),
            detail=self.extent,
            not_finite=not_finite,
        )
