"""Lazy ratio: the share of attention on sinks and window."""

import torch
from pydantic import Field
from torch import Tensor

from layerwright.kernels.covered_mass import covered_mass
from layerwright.tasks.errors import InputError
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.passes.blocks import Visit, Visitor
from layerwright.tasks.passes.states import Record
from layerwright.tasks.profile.base import BlockProfiler


class Laziness(BlockProfiler):
    """Lazy ratio of LightTransfer (arXiv 2410.13846, section 3.2), computed from log-sum-exps.

    r = mean over rows, heads and the last ``last_queries`` queries q of
    sum over visible k of A(q, k) = exp(logsumexp of visible scores - logsumexp of all scores),
    where visible is k <= q and (q - k < window or k < sinks). Higher is lazier. 1 means that
    streaming attention loses nothing at these queries. Score: ``lazy_ratio``.

    Only ``last_queries`` x T scores are in memory at a time, never T x T.
    """

    name = "laziness"
    sinks: int = Field(default=4, ge=0)
    window: int = Field(default=1020, ge=1)
    last_queries: int = Field(default=32, ge=1)

    def begin(self, model: HybridForCausalLM, rows: Tensor) -> Visitor:
        tokens = rows.shape[1]
        if tokens <= self.sinks + self.window:
            raise InputError(
                f"laziness: rows of {tokens} tokens are too short: sinks + window "
                f"({self.sinks} + {self.window}) cover them, and every lazy ratio would be 1",
                where="profile.row_tokens",
                expected=f"more than {self.sinks + self.window} tokens a row",
                remedy="lengthen the rows, or give laziness a smaller window",
            )
        return _LazyRatio(self)


class _LazyRatio:
    def __init__(self, options: Laziness) -> None:
        self.options = options
        self.sum, self.rows = torch.zeros((), dtype=torch.float64), 0

    def visit(self, visit: Visit) -> None:
        q = visit.last_queries(self.options.last_queries)
        (ratio,) = covered_mass(q, visit.keys, (self.options.window,), self.options.sinks)
        self.sum += ratio.mean(dim=(1, 2)).double().sum().cpu()
        self.rows += len(visit.ids)

    def record(self) -> Record:
        return {"lazy_ratio": self.sum / self.rows}
