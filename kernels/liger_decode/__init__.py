"""Liger's layer for one new token: state and window in one call (README.md)."""

from layerwright.kernels.liger_decode.dispatch import liger_decode

__all__ = ["liger_decode"]
