"""Local attention: a span of tokens one by one, and all before it in blocks (README.md)."""

from layerwright.kernels.local_attention.block_sums import add_to_blocks
from layerwright.kernels.local_attention.dispatch import local_attention
from layerwright.kernels.local_attention.reference import BlockMeans, SoftSpan

__all__ = ["BlockMeans", "SoftSpan", "add_to_blocks", "local_attention"]
