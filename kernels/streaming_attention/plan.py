"""Ranges of key blocks that a block of queries can see, and the reverse.

All steps are tensor operations, so the host never waits for the device.
Shapes: R rows of positions (B or 1), Q queries, K keys, N blocks.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

NEVER = torch.iinfo(torch.int64).max  # replaces padding in a minimum


def key_ranges(
    q_positions_RQ: Tensor,
    k_positions_RK: Tensor,
    sinks: int,
    window: int,
    q_block: int,
    k_block: int,
) -> Tensor:
    """For each block of queries, the blocks of keys that may hold a visible key.

    The ranges are exact for rows in ascending order, with padding anywhere. In any other order they
    are wider, but never miss a visible key.

    Returns:
        (R, N, 4) int32, with the stops excluded: blocks [0] to [1] hold sinks, [2] to [3] the
        window.
    """
    low_q, high_q = _bounds(q_positions_RQ, q_block)
    low_k, high_k = _bounds(k_positions_RK, k_block)
    low_q, high_q, low_k, high_k = _same_rows(low_q, high_q, low_k, high_k)
    least_from = _least_from(low_k)
    start = torch.searchsorted(high_k.cummax(1).values, low_q - window + 1)
    stop = torch.searchsorted(least_from, high_q, right=True)
    sink_start = (low_k.cummin(1).values >= sinks).sum(1, keepdim=True).expand_as(start)
    sink_stop = (least_from < sinks).sum(1, keepdim=True).minimum(start).minimum(stop)
    return torch.stack([sink_start, sink_stop, start, stop], dim=-1).int()


def query_ranges(
    q_positions_RQ: Tensor,
    k_positions_RK: Tensor,
    sinks: int,
    window: int,
    q_block: int,
    k_block: int,
) -> Tensor:
    """For each block of keys, the blocks of queries that may see one of its keys.

    All later queries see a block that holds a sink.

    Returns:
        (R, N, 2) int32, with the stops excluded.
    """
    low_q, high_q = _bounds(q_positions_RQ, q_block)
    low_k, high_k = _bounds(k_positions_RK, k_block)
    low_q, high_q, low_k, high_k = _same_rows(low_q, high_q, low_k, high_k)
    start = torch.searchsorted(high_q.cummax(1).values, low_k)
    stop = torch.searchsorted(_least_from(low_q), high_k + window)
    stop = stop.masked_fill(low_k < sinks, low_q.shape[1])
    return torch.stack([start, stop], dim=-1).int()


def _bounds(positions_RT: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Lowest and highest position of each block (R, N); NEVER and -1 if all of it is padding."""
    blocks = F.pad(positions_RT, (0, -positions_RT.shape[1] % block), value=-1)
    blocks = blocks.unflatten(1, (-1, block))
    return blocks.masked_fill(blocks < 0, NEVER).amin(-1), blocks.amax(-1)


def _least_from(low_RN: Tensor) -> Tensor:
    """Lowest position in each block and all later ones (R, N); it never decreases."""
    return low_RN.flip(1).cummin(1).values.flip(1).contiguous()


def _same_rows(*bounds: Tensor) -> list[Tensor]:
    """The tensors, expanded to the same number of rows."""
    count = max(len(x) for x in bounds)
    return [x.expand(count, -1).contiguous() for x in bounds]
