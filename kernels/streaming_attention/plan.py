"""Ranges of key blocks that a block of queries can see, and the reverse.

All steps are tensor operations, so the host never waits for the device.
Shapes: R rows of positions (B or 1), Q queries, K keys, N blocks.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from layerwright.kernels.streaming_attention.reference import Mask

NEVER = torch.iinfo(torch.int64).max  # replaces padding in a minimum


def key_ranges(mask: Mask, q_block: int, k_block: int) -> Tensor:
    """For each block of queries, the blocks of keys that may hold a visible key.

    The ranges are exact for rows in ascending order, with padding anywhere. In any other order they
    are wider, but never miss a visible key.

    Returns:
        (R, N, 4) int32, with the stops excluded: blocks [0] to [1] hold sinks, [2] to [3] the
        window.
    """
    sinks, window = mask[2:]
    low_q, high_q, low_k, high_k = _bounds(mask, q_block, k_block)
    least_from = _least_from(low_k)
    start = torch.searchsorted(high_k.cummax(1).values, low_q - window + 1)
    stop = torch.searchsorted(least_from, high_q, right=True)
    sink_start = (low_k.cummin(1).values >= sinks).sum(1, keepdim=True).expand_as(start)
    sink_stop = (least_from < sinks).sum(1, keepdim=True).minimum(start).minimum(stop)
    return torch.stack([sink_start, sink_stop, start, stop], dim=-1).int()


def query_ranges(mask: Mask, q_block: int, k_block: int) -> Tensor:
    """For each block of keys, the blocks of queries that may see one of its keys.

    All later queries see a block that holds a sink.

    Returns:
        (R, N, 2) int32, with the stops excluded.
    """
    sinks, window = mask[2:]
    low_q, high_q, low_k, high_k = _bounds(mask, q_block, k_block)
    start = torch.searchsorted(high_q.cummax(1).values, low_k)
    stop = torch.searchsorted(_least_from(low_q), high_k + window)
    stop = stop.masked_fill(low_k < sinks, low_q.shape[1])
    return torch.stack([start, stop], dim=-1).int()


def _bounds(mask: Mask, *sizes: int) -> list[Tensor]:
    """Lowest and highest position (R, N) of each block of queries, then of each block of keys.

    NEVER and -1 if all of a block is padding.
    """
    bounds = []
    for positions_RT, block in zip(mask[:2], sizes, strict=True):
        blocks = F.pad(positions_RT, (0, -positions_RT.shape[1] % block), value=-1)
        blocks = blocks.unflatten(1, (-1, block))
        bounds += [blocks.masked_fill(blocks < 0, NEVER).amin(-1), blocks.amax(-1)]
    rows = max(len(x) for x in bounds)
    return [x.expand(rows, -1).contiguous() for x in bounds]


def _least_from(low_RN: Tensor) -> Tensor:
    """Lowest position in each block and all later ones (R, N); it never decreases."""
    return low_RN.flip(1).cummin(1).values.flip(1).contiguous()
