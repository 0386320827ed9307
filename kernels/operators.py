"""Names of the operators that are registered with torch.

A process may load several checkpoints, each with a copy of these modules. Each copy registers its
operators under its own name; otherwise a later copy would replace the operators of an earlier one.
"""

from hashlib import sha256

ORIGINAL = "layerwright.kernels.operators"  # this module's name outside a checkpoint


def operator_name(name: str) -> str:
    """`layerwright::name` in this package; a distinct name in each checkpoint's copy."""
    copy = "" if __name__ == ORIGINAL else "_" + sha256(__name__.encode()).hexdigest()[:8]
    return f"layerwright{copy}::{name}"
