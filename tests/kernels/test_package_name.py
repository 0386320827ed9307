"""The name `kernels` is also a package of Hugging Face's: the clash must be loud."""

import subprocess
import sys
from pathlib import Path

import kernels

ROOT = Path(kernels.__file__).parents[1]


def fake_package(folder: Path) -> None:
    """Hugging Face's package as an environment sees it: a distribution and a module."""
    (folder / "kernels").mkdir(parents=True)
    (folder / "kernels" / "__init__.py").write_text('__version__ = "0.18.3"\n')
    (folder / "kernels-0.18.3.dist-info").mkdir()
    (folder / "kernels-0.18.3.dist-info" / "METADATA").write_text(
        "Name: kernels\nVersion: 0.18.3\n"
    )


def import_error(first: Path, second: Path, module: str) -> str:
    code = f"import sys; sys.path[:0] = [{str(first)!r}, {str(second)!r}]; import {module}"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=first, check=False
    )
    assert result.returncode == 1
    return result.stderr.strip().splitlines()[-1]


def test_no_version_attribute():
    assert not hasattr(kernels, "__version__")


def test_installed_beside_ours(tmp_path):
    fake_package(tmp_path)
    message = import_error(ROOT, tmp_path, "kernels")
    assert "Hugging Face's package 'kernels' 0.18.3 is installed" in message


def test_found_before_ours(tmp_path):
    fake_package(tmp_path)
    message = import_error(tmp_path, ROOT, "tasks.hybrid")
    assert "another package named 'kernels'" in message
