"""Execute a job in several processes on this machine, through torch.distributed.run."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from layerwright import ROOT
from layerwright.tasks.contracts.references import TreeRef
from layerwright.tasks.device import resolve_device
from layerwright.tasks.errors import InputError, StepError
from layerwright.tasks.orchestration.job import Job, Outcome, node_of

logger = logging.getLogger("layerwright")

JOB, OUTCOME, LOG = "job.json", "outcome.json", "processes.log"
RELAYED = "layerwright: "  # prefix of output lines that the parent logs


def run_in_processes(job: Job) -> dict[str, Any]:
    """Execute a job in the number of processes that the recipe gives (process.py).

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
        raise StepError(
            f"{node.step.name}: a process ended with status {status}:\n" + "\n".join(last)
        )
    return Outcome.model_validate_json(outcome.read_bytes()).raised()


def _launch(folder: Path, processes: int) -> int:
    """Start the processes, log what the first one reports, and wait until all have ended."""
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", str(processes)),
        *("-m", "layerwright.tasks.orchestration.process", str(folder), str(os.getpid())),
    ]
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    path = os.pathsep.join([str(ROOT.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {"OMP_NUM_THREADS": threads} | os.environ | {"PYTHONPATH": path}
    with (folder / LOG).open("w") as log:
        process = subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
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
