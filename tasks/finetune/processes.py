"""A training in this process, or in several that torch.distributed.run starts on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter

from layerwright import ROOT
from layerwright.tasks.context import Context
from layerwright.tasks.contracts.references import TreeRef
from layerwright.tasks.errors import InputError, StepError
from layerwright.tasks.finetune.healing import finetune_model
from layerwright.tasks.finetune.regularization import regularize_model
from layerwright.tasks.tracking import live_metrics

TRAININGS: dict[str, Callable[..., Any]] = {
    "finetune": finetune_model,
    "regularize": regularize_model,
}
JOB, OUTCOME, LOG = "job.json", "outcome.json", "processes.log"
TOLD = "layerwright: "  # before a line of the first process that is meant for people


def run_training(step: str, inputs: Mapping[str, Any], ctx: Context) -> Any:
    """Run ``finetune_model`` or ``regularize_model`` where ``ctx.processes`` says.

    Several processes share the models (FSDP2 through accelerate, gloo on the CPU, one process to
    each GPU) and the rows of a step. They end with this process, whatever ends it.

    Raises:
        InputError: more processes than GPUs, or what the training itself refuses.
        StepError: a process failed; its last lines are told.
    """
    if ctx.processes == 1:
        with live_metrics(ctx.tracking, ctx.log) as sink:
            return TRAININGS[step](**inputs, ctx=ctx, sink=sink)
    _check_devices(step, ctx)
    for value in inputs.values():
        if isinstance(value, TreeRef):  # fetched once, before all ask for it
            ctx.store.open_tree(value.sha256)
    adapters = _adapters(step)
    job = {
        "step": step,
        "inputs": {name: adapters[name].dump_python(v, mode="json") for name, v in inputs.items()},
        "store": ctx.store.uri,
        "cache": str(ctx.store.cache),
        "seed": ctx.seed,
        "device": ctx.device,
        "tracking": ctx.tracking.model_dump() if ctx.tracking else None,
        "parent": os.getpid(),
    }
    (ctx.workdir / JOB).write_text(json.dumps(job))
    (ctx.workdir / OUTCOME).unlink(missing_ok=True)
    status = _launch(ctx)
    if not (ctx.workdir / OUTCOME).exists():
        last = (ctx.workdir / LOG).read_text(errors="replace").splitlines()[-20:]
        raise StepError(f"{step}: a process ended with status {status}:\n" + "\n".join(last))
    outcome = json.loads((ctx.workdir / OUTCOME).read_text())
    if error := outcome.get("refused"):
        raise InputError(error.pop("message"), **error)
    if "failed" in outcome:
        raise StepError(outcome["failed"])
    return TypeAdapter(get_type_hints(TRAININGS[step])["return"]).validate_python(outcome["report"])


def read_job(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The job of a folder, and its inputs as contracts."""
    job = json.loads((folder / JOB).read_text())
    adapters = _adapters(job["step"])
    given = job.pop("inputs")
    return job, {name: adapters[name].validate_python(value) for name, value in given.items()}


def _adapters(step: str) -> dict[str, TypeAdapter]:
    hints = get_type_hints(TRAININGS[step])
    outside = {"return", "ctx", "sink", "team"}
    return {name: TypeAdapter(hint) for name, hint in hints.items() if name not in outside}


def _launch(ctx: Context) -> int:
    """Start the processes, pass on what the first one tells, and wait for their end."""
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", str(ctx.processes)),
        *("-m", "layerwright.tasks.finetune.process", str(ctx.workdir)),
    ]
    threads = str(max(1, (os.cpu_count() or 1) // ctx.processes))
    path = os.pathsep.join([str(ROOT.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {"OMP_NUM_THREADS": threads} | os.environ | {"PYTHONPATH": path}
    with (ctx.workdir / LOG).open("w") as log:
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
                if line.startswith(TOLD):
                    ctx.log(line.removeprefix(TOLD).rstrip("\n"))
                else:
                    log.write(line)
        except BaseException:
            process.terminate()  # its agent ends the others
            raise
        finally:
            status = process.wait()
    return status


def _check_devices(step: str, ctx: Context) -> None:
    if not ctx.device.startswith("cuda"):
        return
    import torch

    found = torch.cuda.device_count()
    if found < ctx.processes:
        raise InputError(
            f"{ctx.processes} processes, and {found} GPUs here",
            where=f"compute.steps.{step}.processes",
            expected=f"at most {found}: one process to each GPU",
        )
