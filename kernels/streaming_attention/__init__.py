"""Streaming attention: attention sinks plus a causal sliding window (README.md)."""

from layerwright.kernels.streaming_attention.dispatch import streaming_attention

__all__ = ["streaming_attention"]
