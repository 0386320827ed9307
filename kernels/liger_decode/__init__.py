"""Liger's decode step: gated linear attention and sliding window for one new token (README.md)."""

from layerwright.kernels.liger_decode.dispatch import liger_decode
from layerwright.kernels.liger_decode.reference import LigerMix, NewToken

__all__ = ["LigerMix", "NewToken", "liger_decode"]
