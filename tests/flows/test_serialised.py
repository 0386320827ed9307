"""One at a time: with a Prefect server, and embedded; and what a killed holder leaves."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from facts import says
from in_process import placed
from layerwright_process import environment

HOLDING = """
import sys, time
from layerwright.flows.session.champion import one_at_a_time
with one_at_a_time("tiny", sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_prefect_server_gives_one_slot(tmp_path: Path) -> None:
    from layerwright.flows.session.champion import one_at_a_time
    from layerwright.tasks.errors import StepError

    uri = "http://mlflow.example"
    with placed(tmp_path, environment()):
        with one_at_a_time("tiny", uri):
            with one_at_a_time("other", uri, wait_seconds=30):
                pass
            busy = pytest.raises(StepError, match=says("tiny", "2 s"))
            with busy, one_at_a_time("tiny", uri, wait_seconds=2):
                pass
        with one_at_a_time("tiny", uri, wait_seconds=30):
            pass


def test_embedded_a_killed_holder_frees_it(tmp_path: Path) -> None:
    from layerwright.flows.session.champion import one_at_a_time
    from layerwright.tasks.errors import StepError

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDING, uri],
        env=environment(embedded=True, OMP_NUM_THREADS="1"),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    busy = pytest.raises(StepError, match="tiny")
    with busy, one_at_a_time("tiny", uri, wait_seconds=0.5):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate()
    with one_at_a_time("tiny", uri, wait_seconds=30):
        pass


def test_a_server_of_mlflow_alone_serialises_nothing() -> None:
    from layerwright.flows.session.champion import one_at_a_time
    from layerwright.tasks.errors import InputError

    with (
        pytest.raises(InputError, match=says("promotions", "http://mlflow")),
        one_at_a_time("tiny", "http://mlflow"),
    ):
        pass
