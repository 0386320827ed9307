"""Benchmarks that measure the claims of the documentation; dated files record their results."""
