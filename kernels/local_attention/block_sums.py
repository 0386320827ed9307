"""Sums of keys and values over blocks of positions, extended token by token.

Shapes: B batch, G key/value heads, T new tokens, F blocks, d head size, R is B or 1.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def add_to_blocks(
    sums_BGFd: Tensor | None,
    x_BGTd: Tensor,
    positions_RT: Tensor,
    sinks: int,
    size: int,
    blocks: int,
) -> Tensor:
    """Adds each x to the sum of the block of its position, position // size.

    Sinks and padding are not added.

    Args:
        sums_BGFd: the sums so far, of at most `blocks` blocks; None if there are none.
        x_BGTd: keys or values, or ones for counts.
        positions_RT: int64, -1 for padding.
        sinks: number of first positions to leave out.
        size: positions per block.
        blocks: F of the result; no position is past the last block.

    Returns:
        (B, G, F, d) in fp32 (fp64 for fp64 inputs).
    """
    B, G, T, d = x_BGTd.shape
    dtype = torch.promote_types(x_BGTd.dtype, torch.float32)
    outside_R1T1 = (positions_RT < sinks)[:, None, :, None]
    x_BGTd = x_BGTd.to(dtype).masked_fill(outside_R1T1, 0)
    if sums_BGFd is None:
        sums_BGFd = x_BGTd.new_zeros(B, G, 0, d)
    sums_BGFd = F.pad(sums_BGFd, (0, 0, 0, blocks - sums_BGFd.shape[2]))
    block_RT = positions_RT.clamp_min(0) // size
    if len(block_RT) == 1:
        return sums_BGFd.index_add(2, block_RT[0], x_BGTd)
    return sums_BGFd.scatter_add(2, block_RT[:, None, :, None].expand(B, G, T, d), x_BGTd)
