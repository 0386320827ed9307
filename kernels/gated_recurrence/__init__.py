"""Gated recurrence: linear attention over a decaying state, one per key/value head (README.md)."""

from kernels.gated_recurrence.dispatch import gated_recurrence

__all__ = ["gated_recurrence"]
