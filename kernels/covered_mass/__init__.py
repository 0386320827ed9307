"""Covered mass: how much of full attention falls on the sinks and each of several spans."""

from kernels.covered_mass.dispatch import covered_mass

__all__ = ["covered_mass"]
