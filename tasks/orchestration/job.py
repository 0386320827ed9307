"""A job: one call of a step as a JSON document, and the function that executes it.

A run executes its jobs itself, gives them to a worker of a pool (work_pool.py), or shares a
training among processes (processes.py). Jobs in other processes return an `Outcome`.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.device import resolve_device
from layerwright.tasks.disk import full_disk_as_step_error
from layerwright.tasks.errors import InputError, IntegrityError, LayerwrightError, StepError
from layerwright.tasks.orchestration.place import Place
from layerwright.tasks.steps import Step
from layerwright.tasks.tracking import Tracking, live_metrics

if TYPE_CHECKING:
    from layerwright.tasks.orchestration.node import Node

logger = logging.getLogger("layerwright")

FINAL = (InputError, IntegrityError)  # not retried, because every worker would fail the same way
ERRORS = {kind.__name__: kind for kind in (*FINAL, StepError)}


class Job(Contract):
    """A call of a node."""

    node: str  # the name of its function
    inputs: dict[str, Any]  # the JSON of each input
    place: Place  # of the run
    key: str  # the cache key. It also names the work folder, so that a retry resumes.
    code: str  # the version of the step's code, which is part of the key

    @property
    def workdir(self) -> Path:
        return self.place.paths.work(self.key)


class Outcome(Contract):
    """The outcome of a job in another process: the JSON of its result, or its error."""

    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None

    @classmethod
    def of_error(cls, error: LayerwrightError) -> Outcome:
        fields: dict[str, Any] = {"kind": type(error).__name__, "message": str(error)}
        if isinstance(error, InputError):
            names = ("message", "where", "expected", "remedy")
            fields |= {name: getattr(error, name) for name in names}
        return cls(error=fields)

    def raised(self) -> dict[str, Any]:
        """Return the result, or raise the job's error."""
        if self.error:
            fields = dict(self.error)
            kind = ERRORS.get(fields.pop("kind"), StepError)
            raise kind(fields.pop("message"), **fields)
        assert self.result is not None
        return self.result


def node_of(job: Job) -> Node[Any]:
    """The node that a job calls."""
    from layerwright.tasks.orchestration.node import nodes

    return nodes()[job.node]


def run_job(job: Job, *, rank: int | None = None) -> dict[str, Any]:
    """Call the step's function with the job's inputs; return the JSON of the result.

    Args:
        rank: rank of this process among those that share the job. None: start several processes if
            the recipe asks for them, otherwise call the function in this process.
    """
    node, place = node_of(job), job.place
    step, placement = node.step, place.compute.of(node.step.name)
    with _work_folder(job, step) if rank is None else nullcontext():
        if rank is None and step.trains and placement.processes > 1:
            from layerwright.tasks.orchestration.processes import run_in_processes

            return run_in_processes(job)
        tracking = None
        if step.trains and place.tracking_uri and not rank:  # only the first process sends metrics
            uri, run = place.tracking_uri, place.run_id
            tracking = Tracking(uri=uri, run_id=run, step=step.name, key=job.key)
        device = resolve_device(placement.device)
        with live_metrics(tracking, logger.info) as sink:
            ctx = Context(
                store=place.open_store(),
                workdir=job.workdir,
                seed=place.seed,
                device=f"cuda:{rank}" if rank is not None and device == "cuda" else device,
                processes=placement.processes,
                memory_bytes=place.compute.memory_of(step.name),
                sink=sink,
                log=(lambda message: None) if rank else logger.info,
            )
            inputs = {name: node.inputs[name].validate_python(v) for name, v in job.inputs.items()}
            return node.returns.dump_python(node.function(**inputs, ctx=ctx), mode="json")


@contextmanager
def _work_folder(job: Job, step: Step) -> Iterator[None]:
    """Create the job's folder and remove it on success; after an error a retry resumes from it."""
    logger.info("%-9s started", step.name)
    job.workdir.mkdir(parents=True, exist_ok=True)
    with full_disk_as_step_error(job.place.home):
        yield
    shutil.rmtree(job.workdir, ignore_errors=True)
