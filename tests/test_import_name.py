"""Ours is `layerwright` alone: a package `kernels` of others keeps its name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = """
import kernels
import layerwright.kernels.choice as ours
print(kernels.__file__, kernels.get_kernel(), ours.__name__, ours.__file__, sep="\\n")
"""


@pytest.mark.parametrize("place", [ROOT, ROOT / "tests", ROOT / "layerwright"])
def test_hugging_faces_kernels_stands_beside_ours(tmp_path: Path, place: Path) -> None:
    """The root and tests/ have folders of that name, which are no packages."""
    theirs = tmp_path / "site" / "kernels" / "__init__.py"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("def get_kernel():\n    return 'theirs'\n")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],  # which puts the working folder first
        cwd=place,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(theirs.parents[1])])},
        capture_output=True,
        text=True,
        check=True,
    )
    found, who, name, file = done.stdout.splitlines()
    assert (found, who) == (str(theirs), "theirs")
    assert name == "layerwright.kernels.choice"
    assert Path(file).resolve() == ROOT / "kernels" / "choice.py"
