"""Strategies: what a layer can become, one strategy per file."""
