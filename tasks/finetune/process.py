"""One of several processes that train together.

``python -m layerwright.tasks.finetune.process WORKDIR``, started by processes.py
through torch.distributed.run.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from pathlib import Path

import psutil
import torch
from torch.distributed.elastic.multiprocessing.errors import record

from layerwright.tasks.context import Context
from layerwright.tasks.disk import write_atomically
from layerwright.tasks.errors import InputError, LayerwrightError
from layerwright.tasks.finetune.processes import OUTCOME, TOLD, TRAININGS, read_job
from layerwright.tasks.finetune.team import Team
from layerwright.tasks.store.open import open_store
from layerwright.tasks.tracking import Tracking, live_metrics


@record  # a fault's traceback then stands in the agent's own report
def main(folder: Path) -> None:
    job, inputs = read_job(folder)
    _end_with(job["parent"])
    team = Team.join(job["device"])
    cuda = job["device"].startswith("cuda")
    ctx = Context(
        store=open_store(job["store"], Path(job["cache"])),
        workdir=folder,
        seed=job["seed"],
        device=f"cuda:{os.environ['LOCAL_RANK']}" if cuda else job["device"],
        log=_tell if team.first else lambda message: None,
    )
    tracking = Tracking(**job["tracking"]) if job["tracking"] and team.first else None
    try:
        with live_metrics(tracking, ctx.log) as sink:
            report = TRAININGS[job["step"]](**inputs, ctx=ctx, sink=sink, team=team)
        outcome = {"report": report.model_dump(mode="json")}
    except InputError as error:
        told = {name: getattr(error, name) for name in ("message", "where", "expected", "remedy")}
        outcome = {"refused": told}
    except LayerwrightError as error:
        outcome = {"failed": str(error)}
    if team.first:
        write_atomically(folder / OUTCOME, json.dumps(outcome).encode())
    team.wait()
    torch.distributed.destroy_process_group()


def _tell(message: str) -> None:
    print(TOLD + message, flush=True)


def _end_with(parent: int) -> None:
    """End this process when the one that asked for the training is gone, killed perhaps."""
    asked_by = psutil.Process(parent)

    def watch() -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            while asked_by.is_running() and asked_by.status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
