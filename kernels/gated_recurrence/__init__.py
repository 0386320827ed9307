"""Gated linear attention: a decaying state for each key/value head (README.md)."""

from layerwright.kernels.gated_recurrence.dispatch import gated_recurrence
from layerwright.kernels.gated_recurrence.step import gated_recurrence_step

__all__ = ["gated_recurrence", "gated_recurrence_step"]
