"""Errors of a full disk, as the libraries raise them under a limit on a file's size."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from layerwright.tasks.disk import full_disk_as_step_error, is_out_of_space
from layerwright.tasks.errors import StepError

WRITERS = {
    "open": "open(path, 'wb').write(bytes(10**6))",
    "safetensors": "import torch; from safetensors.torch import save_file; "
    "save_file({'a': torch.zeros(10**6)}, path)",
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_told_whoever_writes(tmp_path: Path, writer: str) -> None:
    script = (
        "import sys; from layerwright.tasks.disk import full_disk_as_step_error\n"
        "from layerwright.tasks.errors import StepError\n"
        "path = sys.argv[1]\n"
        "try:\n"
        f"    with full_disk_as_step_error('the home'): {WRITERS[writer]}\n"
        "except StepError as error: raise SystemExit(str(error))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "file")],
        cwd=Path(__file__).resolve().parents[1],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10**5, 10**5)),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert result.stderr.startswith("no space left in the home: "), result.stderr


def test_other_errors_pass_through() -> None:
    assert not is_out_of_space(FileNotFoundError(2, "No such file or directory"))
    with pytest.raises(ValueError, match="other"), full_disk_as_step_error("here"):
        raise ValueError("other")
    with pytest.raises(StepError), full_disk_as_step_error("here"):
        raise OSError(28, "No space left on device")
