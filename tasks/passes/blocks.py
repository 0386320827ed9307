"""Runs a model block by block: all rows pass one block before the next block runs.

Shapes: B rows in the batch, T tokens a row, D hidden size, H query heads, G key/value heads, d head
size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from layerwright.tasks.hybrid.layer import HybridLayer
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.hybrid.placement import Placement
from layerwright.tasks.models.layer_turn import at_work
from layerwright.tasks.passes.states import FinishedBlocks, Keep, Record
from layerwright.tasks.passes.stream import Stream


@dataclass(frozen=True)
class Visit:
    """One block and one batch of rows, after the block has run.

    Attributes:
        layer: index of the block.
        block: the module, with an attention mixer.
        placement: positions and rotary tables of the tokens.
        ids: (B, T) token ids.
        first_row: index of the batch's first row among all rows.
        x_in, x_out: (B, T, D) residual stream before and after the block; read-only.
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
        """The block's rotated keys, (B, G, T, d), computed once for all visitors."""
        attention = self.block.self_attn
        k = attention.k_proj(self._normed).unflatten(-1, (-1, attention.head_dim))
        if attention.k_norm is not None:
            k = attention.k_norm(k)
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
    """Collects statistics of one block over all batches; it must not keep hidden states."""

    def visit(self, visit: Visit) -> None: ...

    def record(self) -> Record:
        """The statistics of the block, after all rows have passed it."""


@torch.inference_mode()
def run_blocks(
    model: HybridForCausalLM,
    rows: Tensor,
    visitors: Sequence[Callable[[], Visitor]],
    *,
    batch_rows: int | None = None,
    keep: Keep = tuple,
    folder: Path | None = None,
    after: Callable[[int], None] = lambda visits: None,
) -> list[list[Record]]:
    """Runs all blocks over all rows and calls the visitors; no logits are computed.

    Args:
        rows: (R, T) token ids, on any device.
        visitors: each creates a new visitor for a block.
        batch_rows: rows per batch; by default it depends on the device.
        keep: stores the hidden states between two blocks; must be `Spill` if ``folder`` is given.
        folder: keeps the results of finished blocks, so that a new attempt resumes after the last
            finished block.
        after: called with the number of rows that have passed a block, including blocks that an
            earlier attempt finished.

    Returns:
        For each visitor, its record of each block.
    """
    finished = FinishedBlocks(folder) if folder else None
    records, reached = finished.load(model.device) if finished else ([], None)
    after(len(rows) * len(records))
    stream = Stream(model, rows, keep, at_once=batch_rows, from_layer=reached)
    for layer in range(len(records), len(model.model.layers)):
        block, fresh = model.model.layers[layer], [begin() for begin in visitors]

        def watch(batch: int, x_in: Tensor, x_out: Tensor, fresh: list[Visitor] = fresh) -> None:
            ids, layer = stream.ids[batch], stream.layer
            place = layer, model.model.layers[layer], stream.placement
            visit = Visit(*place, ids, batch * len(stream.ids[0]), x_in, x_out)
            for visitor in fresh:
                visitor.visit(visit)
            after(len(ids))

        with at_work(block):  # visitors use the block's weights
            stream.advance(watch)
        records.append([visitor.record() for visitor in fresh])
        if finished:
            stream.replace(finished.finish(layer, records[-1], stream.states))
    return [list(of_visitor) for of_visitor in zip(*records, strict=True)]
