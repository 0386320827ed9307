"""The converted model: its configuration, the model itself and its KV cache.

Each checkpoint ships the modules that inference needs (export.py); they import torch and
Transformers only. Import from the modules: configuration, families, modeling, cache, mixers,
export.
"""
