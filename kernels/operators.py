"""Names under which operators are registered with torch.

A checkpoint carries copies of these modules, and one process may load several beside this tree. A
name belongs to one of them, or a later copy would replace the operator of an earlier one.
"""

from hashlib import sha256

HOME = "layerwright.kernels.operators"  # this module's name where it is no copy


def operator_name(name: str) -> str:
    """`layerwright::name` here, and a name of its own for each copy in a checkpoint."""
    copy = "" if __name__ == HOME else "_" + sha256(__name__.encode()).hexdigest()[:8]
    return f"layerwright{copy}::{name}"
