"""The converted model: one description (HybridConfig), one model (HybridForCausalLM), one cache.

Everything that inference needs ships inside each checkpoint (export.py) and imports torch and
Transformers alone. Import from the modules: configuration, families, modeling, cache, mixers,
export.
"""
