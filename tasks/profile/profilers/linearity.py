"""How nearly a block is a linear map, from sums that never hold the hidden states."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from layerwright.tasks.errors import InputError
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.passes.blocks import Visit
from layerwright.tasks.passes.finished_blocks import Record
from layerwright.tasks.profile.base import BlockProfiler
from layerwright.tasks.strategies.fitting.moments import Moments
from layerwright.tasks.strategies.fitting.stretch import ordinary_tokens


class Linearity(BlockProfiler):
    """Linearity of arXiv 2405.12250, eq. 1, and what is left of it on the delta and out of sample.

    X (N, D) are a block's inputs, Y its outputs, E = Y - X what the block adds; all centred.
    With A* = argmin ||X A - E||_F, the residual map's error is the same, because
    X (A + I) - Y = X A - E. Scores, higher is more linear, 1 is exactly linear:

    - ``linearity`` = 1 - ||X A* - E||^2 / ||Y||^2: the paper's, in sample, with the residual;
    - ``linearity_delta`` = 1 - ||X A* - E||^2 / ||E||^2: in sample, on what the block adds;
    - ``linearity_delta_held_out`` = 1 - ||X' A - E'||^2 / ||E'||^2 on every
      ``held_out_every``-th row, with A = (X^T X + ridge diag(X^T X))^-1 X^T E and the means from
      the other rows. It may be negative: worse than the mean.

    Left out: the first token of each row, BOS tokens, and tokens of massive activation (norm above
    ``massive`` times the row's median, before or after the block), which alone would fit. With
    ``massive`` null all tokens count, as in the paper.

    Kept of one block at a time: two sums of X^T X and X^T E (D, D) in fp64 (rows fitted on, rows
    held out).
    """

    name: ClassVar[str] = "linearity"

    ridge: float = Field(default=0.1, gt=0)  # of each channel's variance
    held_out_every: int = Field(default=4, ge=2)
    massive: float | None = Field(default=10.0, gt=1)

    def begin(self, model: HybridForCausalLM, rows: Tensor) -> _Linearity:
        if len(rows) < self.held_out_every:
            raise InputError(
                f"linearity: {len(rows)} rows leave none to hold out",
                where="profile.rows",
                expected=f"at least held_out_every = {self.held_out_every} rows",
            )
        width = model.config.hidden_size
        if len(rows) * (rows.shape[1] - 1) <= 2 * width:
            raise InputError(
                f"linearity: {rows.numel():,} tokens fit any map of {width} x {width}",
                where="profile.rows",
                expected=f"more than {2 * width:,} tokens, twice the hidden size",
            )
        return _Linearity(self, model)


class _Linearity:
    def __init__(self, options: Linearity, model: HybridForCausalLM) -> None:
        self.options = options
        self.bos = model.config.bos_token_id
        self.fitted_on: Moments | None = None
        self.held_out: Moments | None = None

    def visit(self, visit: Visit) -> None:
        x, y = visit.x_in.float(), visit.x_out.float()
        counted = torch.ones_like(visit.ids, dtype=torch.bool)
        if self.options.massive is not None:
            counted = ordinary_tokens(visit.ids, (x, y), self.bos, self.options.massive)
        weight = counted[..., None].float()
        if self.fitted_on is None or self.held_out is None:
            shift = (x * weight).sum((0, 1)) / weight.sum().clamp_min(1)
            self.fitted_on, self.held_out = (Moments.empty(x.shape[-1], shift) for _ in range(2))
        e = y - x
        every = self.options.held_out_every
        for row in range(len(x)):
            held_out = (visit.first_row + row) % every == every - 1
            sums = self.held_out if held_out else self.fitted_on
            sums.add(x[row], e[row], weight[row])

    def record(self) -> Record:
        assert self.fitted_on is not None
        assert self.held_out is not None
        everything = (self.fitted_on + self.held_out).centred()
        least = everything.least_error()
        scores = {
            "linearity": 1 - least / everything.yy,
            "linearity_delta": 1 - least / everything.ee,
        }
        del everything  # (D, D) products: no more of them at a time than are needed
        fitted = self.fitted_on.centred().ridge_map(self.options.ridge)
        unseen = self.held_out.about(*self.fitted_on.means())
        scores["linearity_delta_held_out"] = 1 - unseen.error(fitted) / unseen.ee
        return {name: score.cpu() for name, score in scores.items()}
