"""Covered mass: the share of attention within spans of several lengths."""

from pydantic import Field
from torch import Tensor

from layerwright.kernels.covered_mass import covered_mass
from layerwright.tasks.errors import InputError
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.profile.base import BlockProfiler, Lengths, MeansByHead
from layerwright.tasks.strategies.local import score_name


class CoveredSpan(BlockProfiler):
    """The share of a layer's attention that each of ``spans``, together with ``sinks``, covers.

    Mean over rows, query heads and the last ``last_queries`` queries q of each row of
    sum over visible k of A(q, k), where visible is k <= q and (q - k < span or k < sinks). Scores:
    ``covered_mass_64`` and so on for the layer, ``covered_mass_64.head_0`` and so on for the query
    heads of each key/value head. The strategy `local` picks its spans by them.

    Only ``last_queries`` x T scores are in memory at a time, never T x T.
    """

    name = "covered_span"
    spans: Lengths = (32, 64, 128, 256, 512)
    sinks: int = Field(default=4, ge=0)
    last_queries: int = Field(default=32, ge=1)

    def begin(self, model: HybridForCausalLM, rows: Tensor) -> MeansByHead:
        tokens, widest = rows.shape[1], max(self.spans)
        if tokens <= self.sinks + widest:
            raise InputError(
                f"covered_span: rows of {tokens} tokens are too short: sinks and widest span "
                f"({self.sinks} + {widest}) would cover all of a row",
                where="profile.row_tokens",
                expected=f"more than {self.sinks + widest} tokens a row",
                remedy="lengthen the rows, or give covered_span smaller spans",
            )
        return MeansByHead(
            [score_name(span) for span in self.spans],
            lambda visit: covered_mass(
                visit.last_queries(self.last_queries), visit.keys, self.spans, self.sinks
            ),
        )
