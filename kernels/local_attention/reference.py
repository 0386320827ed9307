"""Local attention written from its definition, and sums of keys and values over blocks.

Tests compare every faster version with `local_attention_reference`.
Shapes: B batch, H query heads, G key/value heads, Q queries, K keys, T new tokens, F blocks, d head
size, R is B or 1.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class BlockMeans(NamedTuple):
    """Mean key and value of each block of positions [b·size, (b + 1)·size), in place of its keys.

    Attributes:
        keys, values: (B, G, F, d), means over the block's tokens that are not sinks.
        counts: (R, F) tokens in each mean; an empty block is never visible.
        size: positions per block.
    """

    keys: Tensor
    values: Tensor
    counts: Tensor
    size: int


class SoftSpan(NamedTuple):
    """A span that ends in a ramp: weights are multiplied by clamp((ramp + z - x) / ramp, 0, 1).

    x is the distance between query and key (arXiv 1905.07799, eq. 5).

    Attributes:
        lengths: (G,) z in tokens, >= 0.
        ramp: tokens over which the weight falls from 1 to 0, >= 1.
    """

    lengths: Tensor
    ramp: int


def add_to_blocks(
    sums_BGFd: Tensor | None,
    x_BGTd: Tensor,
    positions_RT: Tensor,
    sinks: int,
    size: int,
    blocks: int,
) -> Tensor:
    """Adds each x, but no sink and no padding, to the sum of its block, position // size.

    Args:
        sums_BGFd: the sums so far, of at most `blocks` blocks; None if there are none.
        x_BGTd: keys or values, or ones for counts.
        positions_RT: int64, -1 for padding.
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


def lower_edge(q_positions: Tensor, span: int, size: int = 1) -> Tensor:
    """First position that a query sees exactly: max(i - span + 1, 0), or its block's start."""
    return (q_positions - span + 1).clamp_min(0) // size * size


def visible_keys(
    q_positions_RQ: Tensor, k_positions_RK: Tensor, sinks: int, span: int, size: int = 1
) -> Tensor:
    """Mask (R, Q, K): 0 <= j <= i and (j >= lower edge of i or j < sinks)."""
    i, j = q_positions_RQ[:, :, None], k_positions_RK[:, None, :]
    return (j >= 0) & (j <= i) & ((j >= lower_edge(i, span, size)) | (j < sinks))


def visible_blocks(q_positions_RQ: Tensor, counts_RF: Tensor, span: int, size: int) -> Tensor:
    """Mask (R, Q, F) of the non-empty blocks that end before the query's lower edge."""
    ends = (torch.arange(counts_RF.shape[1], device=q_positions_RQ.device) + 1) * size
    return (ends <= lower_edge(q_positions_RQ[:, :, None], span, size)) & (counts_RF > 0)[:, None]


def log_ramp(
    soft: SoftSpan, q_positions_RQ: Tensor, k_positions_RK: Tensor, sinks: int
) -> tuple[Tensor, Tensor]:
    """Log of the soft span's weights (R, G, Q, K), and the mask of the weights above zero.

    Sinks have weight 1. For weight 0 the log is 0, not -inf, so that gradients stay finite.
    """
    x = (q_positions_RQ[:, :, None] - k_positions_RK[:, None, :])[:, None]
    weight = ((soft.ramp + soft.lengths[:, None, None] - x) / soft.ramp).clamp(0, 1)
    weight = weight.masked_fill((k_positions_RK < sinks)[:, None, None], 1)
    return weight.masked_fill(weight <= 0, 1).log(), weight > 0


def local_attention_reference(
    q_BHQd: Tensor,
    k_BGKd: Tensor,
    v_BGKd: Tensor,
    q_positions_RQ: Tensor,
    k_positions_RK: Tensor,
    sinks: int,
    span: int,
    means: BlockMeans | None = None,
    soft: SoftSpan | None = None,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor, Tensor]:
    """Two dense softmaxes and their merge, in fp32 (fp64 for fp64 inputs).

    Args and returns are those of `local_attention`. Allocates Q × K scores: for tests only.
    """
    H, d = q_BHQd.shape[1], q_BHQd.shape[3]
    groups = H // k_BGKd.shape[1]
    dtype = torch.promote_types(q_BHQd.dtype, torch.float32)
    i, j = q_positions_RQ.to(q_BHQd.device), k_positions_RK.to(q_BHQd.device)
    padding_R1K1 = (j < 0)[:, None, :, None]
    q = q_BHQd.to(dtype).masked_fill((i < 0)[:, None, :, None], 0) * d**-0.5

    def heads(x_BGKd: Tensor) -> Tensor:
        return x_BGKd.to(dtype).repeat_interleave(groups, dim=1)

    scores_BHQK = q @ heads(k_BGKd.masked_fill(padding_R1K1, 0)).mT
    visible = visible_keys(i, j, sinks, span, means.size if means else 1)[:, None]
    if soft is not None:
        logs_RGQK, seen_RGQK = log_ramp(soft, i, j, sinks)
        scores_BHQK = scores_BHQK + logs_RGQK.repeat_interleave(groups, dim=1)
        visible = visible & seen_RGQK.repeat_interleave(groups, dim=1)
    out, lse = _attend(scores_BHQK, visible, heads(v_BGKd.masked_fill(padding_R1K1, 0)))
    lse_far = torch.full_like(lse, -torch.inf)
    if means is not None:
        scores_BHQF = q @ heads(means.keys).mT + means.counts.to(dtype).log()[:, None, None]
        blocks = visible_blocks(i, means.counts, span, means.size)[:, None]
        far, lse_far = _attend(scores_BHQF, blocks, heads(means.values))
        gap = (lse - lse_far).masked_fill(lse.isneginf() & lse_far.isneginf(), 0)
        share = gap.sigmoid()[..., None]  # e^lse / (e^lse + e^lse_far)
        out = share * out + (1 - share) * far
    out = out.to(q_BHQd.dtype)
    return (out, lse, lse_far) if return_lse else out


def _attend(scores_BHQK: Tensor, visible: Tensor, values_BHKd: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax output and log-sum-exp over the visible keys; 0 and -inf where none is visible."""
    blind = ~visible.any(-1, keepdim=True)
    # A softmax over no key is NaN, so a blind query attends to all; then its output is zeroed.
    scores = scores_BHQK.masked_fill(blind, 0).masked_fill(~(visible | blind), -torch.inf)
    out = (scores.softmax(-1) @ values_BHKd).masked_fill(blind, 0)
    return out, scores.logsumexp(-1).masked_fill(blind[..., 0], -torch.inf)
