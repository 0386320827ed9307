"""The command line in a process of its own, with one environment for all tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMAND = [sys.executable, "-m", "flows.cli"]


def environment(**extra: str) -> dict[str, str]:
    """This environment without any server's address, and with the project importable."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_"))}
    return kept | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"} | extra


def layerwright(
    *arguments: str, cwd: Path, threads: int | None = 1, **extra: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end. ``threads`` None leaves all to it."""
    if threads:
        extra["OMP_NUM_THREADS"] = str(threads)
    return subprocess.run(
        [*COMMAND, *arguments], cwd=cwd, env=environment(**extra), capture_output=True, text=True
    )


def last_line(result: subprocess.CompletedProcess[str]) -> dict:
    """The JSON object on the last line of stdout."""
    assert result.stdout.strip(), result.stderr
    return json.loads(result.stdout.strip().splitlines()[-1])
