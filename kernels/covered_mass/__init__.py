"""Covered mass: how much of full attention falls on the sinks and each of several spans."""

from layerwright.kernels.covered_mass.dispatch import covered_mass

__all__ = ["covered_mass"]
