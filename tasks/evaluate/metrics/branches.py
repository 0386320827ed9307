"""Perplexity with either branch of gated recurrences switched off."""

from collections.abc import Iterable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from layerwright.tasks.evaluate.arms import Arms
from layerwright.tasks.evaluate.base import Figure, RowsMetric
from layerwright.tasks.hybrid.mixers.gated_recurrence import GatedRecurrence
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.models.ablation import Branch, ablated
from layerwright.tasks.passes.likelihood import target_nll

BRANCHES: tuple[Branch, ...] = ("window", "recurrence")


class Branches(RowsMetric):
    """``perplexity_without_window.<text>`` and ``perplexity_without_recurrence.<text>``.

    Only for arms with gated recurrences. If the second is not above the arm's perplexity, the
    recurrence contributes nothing, and a streaming layer would do the same at a lower cost
    (arXiv 2510.05901).
    """

    name = "branches"
    families = tuple(f"perplexity_without_{branch}" for branch in BRANCHES)

    def estimate_tokens(self) -> int:
        return len(self.texts) * len(BRANCHES) * self.rows * self.row_tokens

    def measure(self, arms: Arms) -> Iterator[Figure]:
        for arm in arms.names:
            if not any(isinstance(m, GatedRecurrence) for m in arms.model(arm).modules()):
                continue
            for row_pass in self.row_passes():
                rows = tuple(arms.texts.rows(row_pass))
                for branch in BRANCHES:
                    options = [branch, row_pass.text, self.rows, self.row_tokens]
                    compute, what = partial(_row_nlls, branch=branch), f"{arm}: without {branch}"
                    nll = arms.item_results(arm, "branches", options, rows, compute, what=what)
                    metric, losses = f"perplexity_without_{branch}.{row_pass.text}", np.array(nll)
                    yield self.over_tokens(
                        arms, arm, metric, losses, "perplexity", aggregate="exp_mean"
                    )


@torch.inference_mode()
def _row_nlls(
    model: HybridForCausalLM, rows: Iterable[Tensor], branch: Branch
) -> Iterator[list[float]]:
    """Yield the NLL of each token of each row, in nats."""
    with ablated(model, branch):
        for row in rows:
            ids = row[None].to(model.device)
            logits = model(ids[:, :-1], use_cache=False).logits
            yield target_nll(logits, ids[:, 1:])[0].tolist()
