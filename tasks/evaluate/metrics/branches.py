"""Perplexity with either branch of gated recurrences switched off."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from layerwright.tasks.evaluate.arms import Arms
from layerwright.tasks.evaluate.base import Figure, Metric
from layerwright.tasks.evaluate.scoring import scored, token_blocks
from layerwright.tasks.evaluate.texts import TextPass
from layerwright.tasks.hybrid.mixers.gated_recurrence import GatedRecurrence
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.models.ablation import Branch, ablated
from layerwright.tasks.passes.likelihood import target_nll

BRANCHES: tuple[Branch, ...] = ("window", "recurrence")


class Branches(Metric):
    """``perplexity_without_window.<text>`` and ``perplexity_without_recurrence.<text>``.

    Only for arms with gated recurrences. If the second is not above the arm's perplexity, the
    recurrence contributes nothing, and a streaming layer would do the same at a lower cost
    (arXiv 2510.05901).
    """

    name: ClassVar[str] = "branches"

    texts: Annotated[tuple[str, ...], Field(min_length=1)]
    rows: Annotated[int, Field(gt=0)] = 8
    row_tokens: Annotated[int, Field(gt=1)] = 1024

    def names(self) -> tuple[str, ...]:
        return tuple(f"perplexity_without_{b}.{text}" for text in self.texts for b in BRANCHES)

    def needed_texts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.texts))

    def estimate_tokens(self) -> int:
        return len(self.texts) * len(BRANCHES) * self.rows * self.row_tokens

    def measure(self, arms: Arms) -> Iterator[Figure]:
        for arm in arms.names:
            mixers = arms.model(arm).modules()
            if not any(isinstance(module, GatedRecurrence) for module in mixers):
                continue
            for text in self.texts:
                text_pass = TextPass(text, self.rows, self.row_tokens)
                for branch in BRANCHES:
                    rows = tuple(arms.texts.rows(text_pass))
                    options = [branch, text, self.rows, self.row_tokens]
                    compute = partial(_row_nlls, branch=branch)
                    what = f"{arm}: without {branch}"
                    nll = np.array(
                        arms.item_results(arm, "branches", options, rows, compute, what=what)
                    )
                    metric = f"perplexity_without_{branch}.{text}"
                    yield scored(
                        metric,
                        arm,
                        token_blocks(nll),
                        unit="perplexity",
                        higher_is_better=False,
                        seed=arms.seed_of(metric),
                        aggregate="exp_mean",
                        detail=f"{self.rows} rows of {self.row_tokens} tokens",
                    )


@torch.inference_mode()
def _row_nlls(
    model: HybridForCausalLM, rows: Iterable[Tensor], branch: Branch
) -> Iterator[list[float]]:
    """Yield the NLL of each token of each row, in nats."""
    with ablated(model, branch):
        for row in rows:
            yield _nll(model, row[None].to(model.device))


def _nll(model: HybridForCausalLM, ids: Tensor) -> list[float]:
    return target_nll(model(ids[:, :-1], use_cache=False).logits, ids[:, 1:])[0].tolist()
