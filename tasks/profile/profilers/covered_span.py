"""Covered mass: the share of attention within spans of several lengths."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from layerwright.kernels.covered_mass import covered_mass
from layerwright.tasks.errors import InputError
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.passes.blocks import Visit
from layerwright.tasks.passes.finished_blocks import Record
from layerwright.tasks.profile.base import BlockProfiler
from layerwright.tasks.strategies.local import score_name


class CoveredSpan(BlockProfiler):
    """The share of a layer's attention that each of ``spans``, together with ``sinks``, covers.

    Mean over rows, query heads and the last ``last_queries`` queries q of each row of
    sum over visible k of A(q, k), where visible is k <= q and (q - k < span or k < sinks). Scores:
    ``covered_mass_64`` and so on for the layer, ``covered_mass_64.head_0`` and so on for the query
    heads of each key/value head. The strategy `local` picks its spans by them.

    Only ``last_queries`` x T scores are in memory at a time, never T x T.
    """

    name: ClassVar[str] = "covered_span"

    spans: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (
        *(32, 64, 128, 256, 512),
    )
    sinks: int = Field(default=4, ge=0)
    last_queries: int = Field(default=32, ge=1)

    def begin(self, model: HybridForCausalLM, rows: Tensor) -> _CoveredMass:
        tokens, widest = rows.shape[1], max(self.spans)
        if tokens <= self.sinks + widest:
            raise InputError(
                f"covered_span: rows of {tokens} tokens are too short: sinks and widest span "
                f"({self.sinks} + {widest}) would cover all of a row",
                where="profile.row_tokens",
                expected=f"more than {self.sinks + widest} tokens a row",
                remedy="lengthen the rows, or give covered_span smaller spans",
            )
        return _CoveredMass(self, model.config.num_key_value_heads)


class _CoveredMass:
    def __init__(self, options: CoveredSpan, heads: int) -> None:
        self.options = options
        self.sums = torch.zeros(len(options.spans), heads, dtype=torch.float64)
        self.rows = 0

    def visit(self, visit: Visit) -> None:
        options, k = self.options, visit.keys
        q = visit.last_queries(options.last_queries)
        mass = covered_mass(q, k, options.spans, options.sinks)
        by_head = mass.unflatten(2, (k.shape[1], -1)).mean(dim=(3, 4))  # (spans, B, G)
        self.sums += by_head.double().sum(1).cpu()
        self.rows += len(visit.ids)

    def record(self) -> Record:
        record = {}
        for span, by_head in zip(self.options.spans, self.sums / self.rows, strict=True):
            record[score_name(span)] = by_head.mean()
            record |= {score_name(span, head): mass for head, mass in enumerate(by_head)}
        return record
