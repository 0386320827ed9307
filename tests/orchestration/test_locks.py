"""The locks of one machine: one holder at a time, none once the holder is dead."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from layerwright_process import environment

from layerwright.tasks.orchestration.locks import FileLocks

HOLDS = """
import sys, time
from pathlib import Path
from layerwright.tasks.orchestration.locks import FileLocks
locks = FileLocks(Path(sys.argv[1]))
assert locks.acquire_lock("step/1", "other")
print("held", flush=True)
time.sleep(600)
"""


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    mine, other = FileLocks(tmp_path), FileLocks(tmp_path)
    assert not mine.is_locked("step/1")
    assert mine.acquire_lock("step/1", "me")
    assert mine.acquire_lock("step/1", "me"), "its holder has it already"
    assert mine.is_lock_holder("step/1", "me")
    assert not mine.is_lock_holder("step/1", "you")
    assert other.is_locked("step/1")
    assert not other.acquire_lock("step/1", "you", acquire_timeout=0)
    assert not other.wait_for_lock("step/1", timeout=0)
    assert other.acquire_lock("step/2", "you"), "another step is free"
    with pytest.raises(ValueError, match="you does not hold"):
        mine.release_lock("step/1", "you")
    mine.release_lock("step/1", "me")
    assert other.wait_for_lock("step/1", timeout=0)
    assert other.acquire_lock("step/1", "you", acquire_timeout=0)


def test_a_dead_holder_holds_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDS, str(tmp_path)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        locks = FileLocks(tmp_path)
        assert not locks.acquire_lock("step/1", "me", acquire_timeout=0)
    finally:
        holder.kill()
    assert locks.acquire_lock("step/1", "me", acquire_timeout=30)
    holder.communicate()
