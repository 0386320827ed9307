"""The converted model: one description (HybridConfig), one model (HybridForCausalLM), one cache.

Everything that inference needs ships inside each checkpoint (export.py) and imports torch and
Transformers alone. Import from the modules: configuration, families, modeling, cache, mixers,
export.
"""

from pathlib import Path

import kernels

if list(kernels.__path__) != [str(Path(__file__).resolve().parents[2] / "kernels")]:
    raise ImportError(
        f"Python finds another package named 'kernels' (in {list(kernels.__path__)}) before "
        "Layerwright's own; Hugging Face publishes one. Run 'pip uninstall kernels' here."
    )
