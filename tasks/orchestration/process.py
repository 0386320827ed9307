"""Execute a job as one of the processes that share it.

``python -m layerwright.tasks.orchestration.process FOLDER PARENT``: processes.py starts it through
torch.distributed.run. PARENT is the id of the process that runs the job.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from pathlib import Path

import psutil
import torch
from torch.distributed.elastic.multiprocessing.errors import record

from layerwright.tasks.disk import write_atomically
from layerwright.tasks.errors import LayerwrightError
from layerwright.tasks.orchestration.job import Job, Outcome, run_job
from layerwright.tasks.orchestration.processes import JOB, OUTCOME, RELAYED


@record  # torch.distributed.run then reports the traceback of an exception
def main(folder: Path, parent: int) -> None:
    _end_with(parent)
    job = Job.model_validate_json((folder / JOB).read_bytes())
    rank = int(os.environ["RANK"])  # on this machine alone: LOCAL_RANK is the same
    if rank == 0:
        _log_to_parent()
    try:
        outcome = Outcome(result=run_job(job, rank=rank))
    except LayerwrightError as error:
        outcome = Outcome.of_error(error)
    if rank == 0:
        write_atomically(folder / OUTCOME, outcome.model_dump_json().encode())
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def _log_to_parent() -> None:
    logger, handler = logging.getLogger("layerwright"), logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter(f"{RELAYED}%(message)s"))
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)


def _end_with(parent: int) -> None:
    """Exit when the parent process has ended, even if it was killed."""
    process = psutil.Process(parent)

    def watch() -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
