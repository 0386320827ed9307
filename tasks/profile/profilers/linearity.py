"""Linearity: how well a linear map replaces a block, computed from running sums."""

from pydantic import Field
from torch import Tensor

from layerwright.tasks.errors import InputError
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.passes.blocks import Visit, Visitor
from layerwright.tasks.passes.states import Record
from layerwright.tasks.profile.base import BlockProfiler
from layerwright.tasks.strategies.fitting.ridge import Moments
from layerwright.tasks.strategies.fitting.stretch import ordinary_tokens


class Linearity(BlockProfiler):
    """Linearity of arXiv 2405.12250, eq. 1, also without the residual and on held-out rows.

    X (N, D) are a block's inputs, Y its outputs, and E = Y - X its delta; all are centred.
    A* = argmin ||X A - E||_F. The map A* + I from X to Y has the same error, because
    X (A + I) - Y = X A - E. Scores (higher is more linear, 1 is exactly linear):

    - ``linearity`` = 1 - ||X A* - E||^2 / ||Y||^2: the paper's, in sample, with the residual.
    - ``linearity_delta`` = 1 - ||X A* - E||^2 / ||E||^2: in sample, of the delta.
    - ``linearity_delta_held_out`` = 1 - ||X' A - E'||^2 / ||E'||^2 on every
      ``held_out_every``-th row, with A = (X^T X + ridge diag(X^T X))^-1 X^T E and the means from
      the other rows. It is negative if A predicts worse than the mean.

    The tokens that `ordinary_tokens` leaves out do not count. If ``massive`` is null, all tokens
    count, as in the paper. In memory for the current block: X^T X and X^T E (D, D) in fp64, for the
    rows of the fit and for the held-out rows.
    """

    name = "linearity"
    ridge: float = Field(default=0.1, gt=0)  # relative to the variance of each channel
    held_out_every: int = Field(default=4, ge=2)
    massive: float | None = Field(default=10.0, gt=1)

    def begin(self, model: HybridForCausalLM, rows: Tensor) -> Visitor:
        if len(rows) < self.held_out_every:
            raise InputError(
                f"linearity: {len(rows)} rows leave no held-out row",
                where="profile.rows",
                expected=f"at least held_out_every = {self.held_out_every} rows",
            )
        width = model.config.hidden_size
        if len(rows) * (rows.shape[1] - 1) <= 2 * width:
            raise InputError(
                f"linearity: {rows.numel():,} tokens are too few to fit a map of {width} x {width}",
                where="profile.rows",
                expected=f"more than {2 * width:,} tokens, twice the hidden size",
            )
        return _Linearity(self, model)


class _Linearity:
    def __init__(self, options: Linearity, model: HybridForCausalLM) -> None:
        self.options, self.bos = options, model.config.bos_token_id
        self.fitted: Moments | None = None
        self.held_out: Moments | None = None

    def visit(self, visit: Visit) -> None:
        x, y = visit.x_in.float(), visit.x_out.float()
        counted = ordinary_tokens(visit.ids, (x, y), self.bos, self.options.massive)
        weight = counted[..., None].float()
        if self.fitted is None or self.held_out is None:
            shift = (x * weight).sum((0, 1)) / weight.sum().clamp_min(1)
            self.fitted, self.held_out = (Moments.empty(x.shape[-1], shift) for _ in range(2))
        e = y - x
        every = self.options.held_out_every
        for row in range(len(x)):
            held_out = (visit.first_row + row) % every == every - 1
            moments = self.held_out if held_out else self.fitted
            moments.add(x[row], e[row], weight[row])

    def record(self) -> Record:
        assert self.fitted is not None
        assert self.held_out is not None
        all_rows = (self.fitted + self.held_out).centred()
        error = all_rows.least_error()
        scores = {"linearity": 1 - error / all_rows.yy, "linearity_delta": 1 - error / all_rows.ee}
        del all_rows  # frees its (D, D) products
        linear_map = self.fitted.centred().ridge_map(self.options.ridge)
        held_out = self.held_out.about(*self.fitted.means())
        scores["linearity_delta_held_out"] = 1 - held_out.error(linear_map) / held_out.ee
        return {name: score.cpu() for name, score in scores.items()}
