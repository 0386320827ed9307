"""Measures times and peak memory of models."""
