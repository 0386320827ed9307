"""Block influence: how much a block rotates the residual stream."""

import torch
from pydantic import Field
from torch import Tensor

from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.passes.blocks import Visit, Visitor
from layerwright.tasks.passes.states import Record
from layerwright.tasks.profile.base import BlockProfiler
from layerwright.tasks.strategies.fitting.stretch import ordinary_tokens


class BlockInfluence(BlockProfiler):
    """Block influence of ShortGPT (arXiv 2403.03853, eq. 1).

    BI_l = 1 - mean over tokens t of <x_l,t, x_l+1,t> / (|x_l,t| |x_l+1,t|), where x_l,t (D,) is the
    residual stream before block l. Lower means that the block changes less; 0 means that it does
    not change the direction at all. Score: ``block_influence``. Products in fp32, sums in fp64.

    All tokens count, as in the paper; with ``massive``, only those of `ordinary_tokens`.
    """

    name = "block_influence"
    massive: float | None = Field(default=None, gt=1)

    def begin(self, model: HybridForCausalLM, rows: Tensor) -> Visitor:
        return _Influence(self, model)


class _Influence:
    def __init__(self, options: BlockInfluence, model: HybridForCausalLM) -> None:
        self.massive, self.bos = options.massive, model.config.bos_token_id
        self.cosines, self.tokens = torch.zeros(2, dtype=torch.float64)

    def visit(self, visit: Visit) -> None:
        x, y = visit.x_in.float(), visit.x_out.float()
        xy, xx, yy = ((a * b).sum(-1, dtype=torch.float64) for a, b in ((x, y), (x, x), (y, y)))
        cosines = xy / (xx * yy).sqrt().clamp_min(torch.finfo(torch.float32).tiny)
        counted = ordinary_tokens(visit.ids, (x, y), self.bos, self.massive)
        self.cosines = self.cosines + cosines[counted].sum().cpu()
        self.tokens = self.tokens + counted.sum().cpu()

    def record(self) -> Record:
        return {"block_influence": 1 - self.cosines / self.tokens}
