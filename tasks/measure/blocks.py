"""Block by block through a model, one batch of rows at a time.

Shapes: B rows in the batch, T tokens a row, D hidden size, H query heads, G key/value heads, d head
size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from tasks.hybrid.layer import HybridLayer
from tasks.hybrid.modeling import HybridForCausalLM
from tasks.hybrid.placement import Placement


@dataclass(frozen=True)
class Visit:
    """One block on one batch of rows, after it was run.

    Attributes:
        layer: index of the block.
        block: the module itself, with an attention mixer.
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

    @cached_property
    def keys(self) -> Tensor:
        """The block's rotated keys, (B, G, T, d), made once for all visitors."""
        k = self.block.self_attn.k_proj(self._normed)
        k = k.unflatten(-1, (-1, self.block.self_attn.head_dim))
        if self.block.self_attn.k_norm is not None:
            k = self.block.self_attn.k_norm(k)
        k = k.transpose(1, 2)
        return apply_rotary_pos_emb(k, k, *self.placement.rotary)[1]

    def last_queries(self, count: int) -> Tensor:
        """The block's rotated queries of the last ``count`` positions, (B, H, count, d)."""
        cos, sin = self.placement.rotary
        last = self._normed[:, -count:]
        return self.block.self_attn.project(last, (cos[:, -count:], sin[:, -count:]))[0]

    @cached_property
    def _normed(self) -> Tensor:
        return self.block.input_layernorm(self.x_in)


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

    Two hidden states of one batch live at a time, and what a visit makes of them, whatever the
    number of rows and layers.

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
