"""Covered mass: share of full attention that falls on the sinks and on each span (README.md)."""

from layerwright.kernels.covered_mass.dispatch import covered_mass

__all__ = ["covered_mass"]
