"""Which blocks of keys a block of queries can see, and the reverse, without waiting for the device.

Shapes: R rows of positions (B or 1), Q queries, K keys, N blocks of them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

NEVER = torch.iinfo(torch.int64).max  # stands for padding where the least position is wanted


def key_ranges(
    q_positions_RQ: Tensor,
    k_positions_RK: Tensor,
    sinks: int,
    window: int,
    q_block: int,
    k_block: int,
) -> Tensor:
    """Blocks of keys that may hold a visible key, for each block of queries.

    Exact for rows in ascending order, with padding anywhere; in any other order the ranges grow,
    and never miss a key.

    Returns:
        (R, N, 4) int32: [0] to [1] with sinks, then [2] to [3] with the window; stops excluded.
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
    """Blocks of queries that may see a key, for each block of keys: (R, N, 2) int32, stop excluded.

    A block with a sink is seen by all later queries.
    """
    low_q, high_q = _bounds(q_positions_RQ, q_block)
    low_k, high_k = _bounds(k_positions_RK, k_block)
    low_q, high_q, low_k, high_k = _same_rows(low_q, high_q, low_k, high_k)
    start = torch.searchsorted(high_q.cummax(1).values, low_k)
    stop = torch.searchsorted(_least_from(low_q), high_k + window)
    stop = stop.masked_fill(low_k < sinks, low_q.shape[1])
    return torch.stack([start, stop], dim=-1).int()


def _bounds(positions_RT: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Least and greatest position of each block (R, N); NEVER and -1 where all is padding."""
    blocks = F.pad(positions_RT, (0, -positions_RT.shape[1] % block), value=-1)
    blocks = blocks.unflatten(1, (-1, block))
    return blocks.masked_fill(blocks < 0, NEVER).amin(-1), blocks.amax(-1)


def _least_from(low_RN: Tensor) -> Tensor:
    """Least position from each block on (R, N): ascending, whatever the order."""
    return low_RN.flip(1).cummin(1).values.flip(1).contiguous()


def _same_rows(*bounds: Tensor) -> list[Tensor]:
    count = max(len(x) for x in bounds)
    return [x.expand(count, -1).contiguous() for x in bounds]
