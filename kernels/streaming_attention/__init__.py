"""Streaming attention: causal attention to the first tokens and the last ones (README.md)."""

from layerwright.kernels.streaming_attention.dispatch import streaming_attention

__all__ = ["streaming_attention"]
