"""The converted model: its configuration, the model itself and its KV cache.

Each checkpoint ships the modules that inference needs (export.py).
"""
