"""The step flow: execute one job on the worker of a pool, as the child of another flow.

The parent flow owns the cache key and decides on retries; this flow executes the job once
(tasks/orchestration/work_pool.py).
"""

from __future__ import annotations

import logging
import os
from typing import Any

from prefect import flow
from prefect.concurrency.sync import concurrency

from layerwright.tasks.errors import LayerwrightError, StepError
from layerwright.tasks.orchestration.code_version import code_version
from layerwright.tasks.orchestration.job import Job, Outcome, node_of, run_job
from layerwright.tasks.orchestration.work_pool import slots_of, write_outcome

LEASE_SECONDS = 90  # Prefect frees the slots of a lost process after this time


@flow(name="step", flow_run_name="{job[node]}", validate_parameters=False)
def step(job: dict[str, Any], attempt: int) -> None:
    """Execute one job, and write its outcome to the store, where the parent reads it.

    The job occupies slots of the pool. Its home folder is LAYERWRIGHT_HOME if the worker sets it,
    otherwise the parent's; in the parent's home it resumes the work of an earlier attempt.

    Args:
        job: the JSON of the parent's `Job`.
        attempt: the number of this attempt, among those for the same cache key.
    """
    logging.getLogger("layerwright").setLevel(logging.INFO)
    asked = Job.model_validate(job)
    home = os.environ.get("LAYERWRIGHT_HOME", asked.place.home)
    here = asked.model_copy(update={"place": asked.place.model_copy(update={"home": home})})
    placement = here.place.compute.of(node_of(here).step.name)
    try:
        _check_code(here)
        slots = slots_of(placement.pool)
        with concurrency(slots, occupy=placement.slots, lease_duration=LEASE_SECONDS, strict=True):
            outcome = Outcome(result=run_job(here))
    except LayerwrightError as error:
        write_outcome(here, attempt, Outcome.of_error(error))
        raise
    write_outcome(here, attempt, outcome)


def _check_code(job: Job) -> None:
    node = node_of(job)
    inputs = [node.inputs[name].validate_python(value) for name, value in job.inputs.items()]
    if job.code != code_version(node.module, inputs):
        raise StepError(
            f"the worker has another version of the code of {job.node} than the parent run: "
            "give both the same commit and the same version of Python"
        )
