"""Block by block through a model, one batch of rows at a time.

Shapes: B rows in the batch, T tokens a row, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from tasks.hybrid.layer import HybridLayer
from tasks.hybrid.modeling import HybridForCausalLM
from tasks.hybrid.placement import Placement


@dataclass(frozen=True)
class Visit:
    """One block on one batch of rows, after it was run.

    Attributes:
        layer: index of the block.
        block: the module itself; ``block.self_attn.project`` gives queries and keys again.
        placement: positions and rotary tables of the tokens.
        ids: (B, T) token ids.
        first_row: index of the batch's first row among all rows.
        x_in, x_out: (B, T, D) residual stream before and after the block. Not to be changed.
    """

    layer: int
    block: HybridLayer
    placement: Placement
    ids: Tensor
    first_row: int
    x_in: Tensor
    x_out: Tensor


class Visitor(Protocol):
    """Sees every block on every batch, layers in order within a batch; keeps sums, not states."""

    def visit(self, visit: Visit) -> None: ...


@torch.inference_mode()
def run_blocks(
    model: HybridForCausalLM,
    rows: Tensor,
    visitors: Sequence[Visitor],
    *,
    batch_rows: int = 1,
    after_batch: Callable[[int], None] = lambda rows: None,
) -> None:
    """Run all blocks over all rows and show each to the visitors; no logits are computed.

    Two hidden states of one batch live at a time, whatever the number of rows and layers.

    Args:
        rows: (R, T) token ids, on any device.
        batch_rows: rows per batch.
        after_batch: called with the number of rows of each finished batch.
    """
    for first in range(0, len(rows), batch_rows):
        ids = rows[first : first + batch_rows].to(model.device)
        x_in, placement = model.model.prepare(ids)
        for layer, block in enumerate(model.model.layers):
            x_out = block(x_in, placement)
            visit = Visit(layer, block, placement, ids, first, x_in, x_out)
            for visitor in visitors:
                visitor.visit(visit)
            x_in = x_out
        after_batch(len(ids))
