"""KL divergence of an arm's predictions from the base's, and top-1 agreement."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from layerwright.tasks.contracts.evaluation import Arm, Presentation
from layerwright.tasks.evaluate.arms import Arms
from layerwright.tasks.evaluate.base import Figure, Metric, measured
from layerwright.tasks.evaluate.scoring import Item, results, scored, token_blocks
from layerwright.tasks.evaluate.texts import TextPass


class Divergence(Metric):
    """KL(base || arm) per predicted token, and agreement of the most likely token.

    ``kl_mean.<text>`` and ``kl_p99.<text>`` in nats, ``top1_agreement.<text>`` as a share. The base
    has no such figures, so a gate compares them by ``value``.
    """

    name: ClassVar[str] = "divergence"
    presentation: ClassVar[Mapping[str, Presentation]] = {
        "top1_agreement": Presentation(
            label="Top-1 agreement",
            part="quality",
            help="share of tokens with the base's most likely token",
        ),
        "kl_mean": Presentation(
            label="KL to base, mean",
            part="quality",
            help="nats per token; 0 means identical to the base",
            log=True,
        ),
        "kl_p99": Presentation(
            label="KL to base, 99th percentile",
            part="quality",
            help="nats; the worst 1 % of tokens",
            log=True,
        ),
    }

    texts: Annotated[tuple[str, ...], Field(min_length=1)]
    rows: Annotated[int, Field(gt=0)] = 8
    row_tokens: Annotated[int, Field(gt=1)] = 1024

    def names(self) -> tuple[str, ...]:
        kinds = ("kl_mean", "kl_p99", "top1_agreement")
        return tuple(f"{kind}.{text}" for text in self.texts for kind in kinds)

    def passes(self) -> tuple[TextPass, ...]:
        return tuple(
            TextPass(text, self.rows, self.row_tokens, divergence=True) for text in self.texts
        )

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
        detail = f"{self.rows} rows of {self.row_tokens} tokens"
        not_finite = f"the divergence is not finite on {invalid.sum():,} of {kl.size:,} tokens"
        for name, values, unit in (("kl_mean", kl, "nats"), ("top1_agreement", agrees, "share")):
            metric = f"{name}.{text_pass.text}"
            yield scored(
                metric,
                arm,
                token_blocks(values),
                unit=unit,
                higher_is_better=name == "top1_agreement",
                seed=arms.seed_of(metric),
                detail=detail,
                not_finite=not_finite,
            )
        worst = [Item(f"row {row}", float(np.quantile(v, 0.99))) for row, v in enumerate(kl)]
        yield measured(
            f"kl_p99.{text_pass.text}",
            arm,
            float(np.quantile(kl, 0.99)),
            unit="nats",
            higher_is_better=False,
            count=kl.size,
            items=results(f"kl_p99.{text_pass.text}", arm, worst),
            detail=detail,
            not_finite=not_finite,
        )
