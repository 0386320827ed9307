"""Profilers, one per file."""
