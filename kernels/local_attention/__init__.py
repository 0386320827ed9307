"""Local attention: exact keys within a span, block means before it (README.md)."""

from layerwright.kernels.local_attention.dispatch import local_attention
from layerwright.kernels.local_attention.reference import BlockMeans, SoftSpan, add_to_blocks

__all__ = ["BlockMeans", "SoftSpan", "add_to_blocks", "local_attention"]
