"""The project's own attention operators, one package each; README.md says which and why.

Hugging Face publishes a package with this same name, which Transformers probes. The two cannot live
in one environment, so this package refuses to be imported beside it. It carries no version
attribute, and
must not: Transformers would compare it with the versions of the other package.
"""

from importlib import metadata

try:
    _other = metadata.distribution("kernels")
except metadata.PackageNotFoundError:
    _other = None
if _other is not None:
    raise ImportError(
        f"Hugging Face's package 'kernels' {_other.version} is installed beside Layerwright's own "
        "'kernels' directory, and Python can import only one of them. Run 'pip uninstall kernels' "
        "here. (Exported checkpoints do not need this directory and load beside either.)"
    )
del _other, metadata
