"""Layerwright's one import name: `layerwright.flows`, `.tasks`, `.kernels` and `.infra`.

In a checkout those four are links to the folders beside this one, so that the name means the
checkout wherever its root is on the path: on a GPU machine without an installation, in a worker
that pulled a commit, for mypy and editors. A wheel has the folders themselves.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parent


def source_file(module: str) -> Path | None:
    """The file of a module of ours (``layerwright.tasks.disk``), or None if there is none."""
    stem = ROOT.joinpath(*module.split(".")[1:])
    candidates = (stem.with_suffix(".py"), stem / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)
