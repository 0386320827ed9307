"""How far an arm's predictions are from the base's, token by token."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from tasks.contracts import Arm, Measurement
from tasks.evaluate.arms import Arms
from tasks.evaluate.base import Metric, TextPass, measured
from tasks.evaluate.interval import token_interval


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

    def measure(self, arms: Arms) -> Iterator[Measurement]:
        for wanted in self.passes():
            for arm in arms.names:
                if arm != "base":
                    yield from self._compare(arms, arm, wanted)

    def _compare(self, arms: Arms, arm: Arm, wanted: TextPass) -> Iterator[Measurement]:
        scores = arms.passed(arm, wanted)
        assert scores.kl is not None  # its pass was asked for with divergence
        assert scores.agrees is not None
        kl, agrees = scores.kl.astype(np.float64), scores.agrees.astype(np.float64)
        finite = np.isfinite(kl)
        if not finite.all():  # the argmax of logits that are no numbers means nothing
            agrees = np.full_like(agrees, np.nan)
        for name, values, value, unit in (
            ("kl_mean", kl, kl.mean(), "nats"),
            ("kl_p99", kl, np.quantile(kl, 0.99), "nats"),
            ("top1_agreement", agrees, agrees.mean(), "share"),
        ):
            metric = f"{name}.{wanted.text}"
            is_mean = name != "kl_p99"
            yield measured(
                metric,
                arm,
                float(value),
                unit=unit,
                higher_is_better=name == "top1_agreement",
                interval=token_interval(values, arms.seed_of(metric))
                if is_mean and finite.all()
                else None,
                count=kl.size,
                detail=f"{self.rows} rows of {self.row_tokens} tokens",
                not_finite=f"{(~finite).sum():,} of {kl.size:,} tokens have no finite "
                "divergence from the base",
            )
