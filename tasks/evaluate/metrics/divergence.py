"""How far an arm's predictions are from the base's, token by token."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from layerwright.tasks.contracts.evaluation import Arm
from layerwright.tasks.evaluate.arms import Arms
from layerwright.tasks.evaluate.base import Figure, Metric, TextPass, measured
from layerwright.tasks.evaluate.scoring import Item, results, scored, token_blocks


class Divergence(Metric):
    """KL(base || arm) per predicted token, and agreement of the most likely token.

    ``kl_mean.<text>`` and ``kl_p99.<text>`` in nats, ``top1_agreement.<text>`` as a share. The base
    has no figure of its own, so a gate compares these by ``value``.
    """

    name: ClassVar[str] = "divergence"

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
        for wanted in self.passes():
            for arm in arms.names:
                if arm != "base":
                    yield from self._compare(arms, arm, wanted)

    def _compare(self, arms: Arms, arm: Arm, wanted: TextPass) -> Iterator[Figure]:
        scores = arms.passed(arm, wanted)
        assert scores.kl is not None  # its pass was asked for with divergence
        assert scores.agrees is not None
        kl, agrees = scores.kl.astype(np.float64), scores.agrees.astype(np.float64)
        lost = ~np.isfinite(kl)
        agrees[lost] = np.nan  # the argmax of logits that are no numbers means nothing
        said = {
            "detail": f"{self.rows} rows of {self.row_tokens} tokens",
            "not_finite": f"{lost.sum():,} of {kl.size:,} tokens have no finite divergence "
            "from the base",
        }
        for name, values, unit in (
            ("kl_mean", kl, "nats"),
            ("top1_agreement", agrees, "share"),
        ):
            metric = f"{name}.{wanted.text}"
            yield scored(
                metric,
                arm,
                token_blocks(values),
                unit=unit,
                higher_is_better=name == "top1_agreement",
                seed=arms.seed_of(metric),
                **said,
            )
        worst = [Item(f"row {row}", float(np.quantile(v, 0.99))) for row, v in enumerate(kl)]
        yield measured(
            f"kl_p99.{wanted.text}",
            arm,
            float(np.quantile(kl, 0.99)),
            unit="nats",
            higher_is_better=False,
            count=kl.size,
            items=results(f"kl_p99.{wanted.text}", arm, worst),
            **said,
        )
