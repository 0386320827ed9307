"""Execute a job in several processes on this machine, through torch.distributed.run.

As a script this file is one of these processes. Its arguments are the job's folder and the id of
the process that runs the job.
"""

import contextlib
import logging
import os
import sys
import threading
import time
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from typing import Any

import psutil

from layerwright import ROOT
from layerwright.tasks.contracts.references import TreeRef
from layerwright.tasks.device import resolve_device
from layerwright.tasks.disk import write_atomically
from layerwright.tasks.errors import InputError, LayerwrightError, StepError
from layerwright.tasks.orchestration.job import Job, Outcome, node_of, run_job

logger = logging.getLogger("layerwright")

JOB, OUTCOME, LOG = "job.json", "outcome.json", "processes.log"
RELAYED = "layerwright: "  # prefix of output lines that the parent logs


def run_in_processes(job: Job) -> dict[str, Any]:
    """Execute a job in the number of processes that the recipe gives.

    They exit when this process ends, even if it is killed.

    Raises:
        InputError: there are more processes than GPUs, or the step rejects its inputs.
        StepError: a process failed; the message has the last lines of its log.
    """
    node, store = node_of(job), job.place.open_store()
    placement = job.place.compute.of(node.step.name)
    if resolve_device(placement.device).startswith("cuda"):
        _check_devices(node.step.name, placement.processes)
    for name, value in job.inputs.items():
        given = node.inputs[name].validate_python(value)
        if isinstance(given, TreeRef):  # download it once, before all processes need it
            store.open_tree(given.sha256)
    (job.workdir / JOB).write_text(job.model_dump_json())
    outcome = job.workdir / OUTCOME
    outcome.unlink(missing_ok=True)
    status = _launch(job.workdir, placement.processes)
    if not outcome.exists():
        last = (job.workdir / LOG).read_text(errors="replace").splitlines()[-20:]
        why = f"a process ended with status {status}:\n" + "\n".join(last)
        raise StepError(f"{node.step.name}: {why}")
    return Outcome.model_validate_json(outcome.read_bytes()).raised()


def _launch(folder: Path, processes: int) -> int:
    """Start the processes, log what the first one reports, and wait until all have ended."""
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", str(processes)),
        *("-m", "layerwright.tasks.orchestration.processes", str(folder), str(os.getpid())),
    ]
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    path = os.pathsep.join([str(ROOT.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {"OMP_NUM_THREADS": threads} | os.environ | {"PYTHONPATH": path}
    with (folder / LOG).open("w") as log:
        process = Popen(command, env=env, stdin=DEVNULL, stdout=PIPE, stderr=log, text=True)
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if line.startswith(RELAYED):
                    logger.info("%s", line.removeprefix(RELAYED).rstrip("\n"))
                else:
                    log.write(line)
        except BaseException:
            process.terminate()  # torch.distributed.run then ends the workers
            raise
        finally:
            status = process.wait()
    return status


def _check_devices(step: str, processes: int) -> None:
    import torch

    gpus = torch.cuda.device_count()
    if gpus < processes:
        raise InputError(
            f"{processes} processes, but this machine has {gpus} GPUs",
            where=f"compute.steps.{step}.processes",
            expected=f"at most {gpus}, because each process needs its own GPU",
        )


def main(folder: Path, parent: int) -> None:
    """Execute the job of a folder as one of its processes."""
    import torch

    _end_with(parent)
    job = Job.model_validate_json((folder / JOB).read_bytes())
    rank = int(os.environ["RANK"])  # on this machine alone: LOCAL_RANK is the same
    if rank == 0:
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter(f"{RELAYED}%(message)s"))
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
    try:
        outcome = Outcome(result=run_job(job, rank=rank))
    except LayerwrightError as error:
        outcome = Outcome.of_error(error)
    if rank == 0:
        write_atomically(folder / OUTCOME, outcome.model_dump_json().encode())
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


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
    from torch.distributed.elastic.multiprocessing.errors import record

    # torch.distributed.run reports the traceback of an exception in a recorded function
    record(main)(Path(sys.argv[1]), int(sys.argv[2]))
