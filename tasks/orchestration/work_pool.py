"""Execute a job on a worker of a Prefect work pool, as a child flow run of ``step/<pool>``.

The parent run owns the cache key and decides on retries. The child executes the job once and writes
its outcome to the store. Each attempt has a number: so a parent that was killed and restarted finds
the child that is still running.
"""

import logging
import time
from itertools import count
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.sorting import LogSort
from prefect.deployments import run_deployment
from prefect.states import Cancelling

from layerwright.tasks.errors import StepError
from layerwright.tasks.orchestration.job import Job, Outcome, node_of
from layerwright.tasks.recipe.compute import StepPlacement

logger = logging.getLogger("layerwright")

POLL_SECONDS = 2.0


def run_on_pool(job: Job) -> dict[str, Any]:
    """Execute a job on a worker of the step's pool, and wait for its result.

    Raises:
        StepError: the child failed, was lost, was cancelled or timed out.
    """
    step = node_of(job).step.name
    placement = job.place.compute.of(step)
    logger.info("%-9s given to the pool %s", step, placement.pool)
    with get_client(sync_client=True) as client:
        child, attempt = _child(client, job, placement)
        try:
            state = _final_state(client, child.id, placement)
        except BaseException:  # cancel the child if this run ends before it
            client.set_flow_run_state(child.id, Cancelling())
            raise
    outcome = read_outcome(job, attempt)
    if outcome and outcome.error:
        outcome.raised()
    if not state.is_completed() or outcome is None:
        message = f" ({state.message})" if state.message else ""
        raise StepError(
            f"{job.node} on the pool {placement.pool!r}: the child run {child.name} ended in state "
            f"{state.name}{message}\n"
            f"  to do: read its log with `prefect flow-run logs {child.id}`"
        )
    return outcome.raised()


def slots_of(pool: str | None) -> str:
    """The name of the global concurrency limit for a pool's slots."""
    return f"{pool}-slots"


def write_outcome(job: Job, attempt: int, outcome: Outcome) -> None:
    """Write the outcome of an attempt to the store, for the parent run."""
    key = f"handed/{job.key}-{attempt}.json"
    job.place.open_store().write(key, outcome.model_dump_json().encode())


def read_outcome(job: Job, attempt: int) -> Outcome | None:
    """The outcome that the child of an attempt wrote; None if it did not get that far."""
    data = job.place.open_store().read(f"handed/{job.key}-{attempt}.json")
    return None if data is None else Outcome.model_validate_json(data)


def _child(client: SyncPrefectClient, job: Job, placement: StepPlacement) -> tuple[FlowRun, int]:
    """The first attempt that is running, that completed with a usable result, or that is new."""
    node = node_of(job)
    for attempt in count(1):
        started: Any = run_deployment(
            f"step/{placement.pool}",
            parameters={"job": job.model_dump(mode="json"), "attempt": attempt},
            flow_run_name=f"{job.node} {job.key[-8:]} {attempt}",
            timeout=0,
            idempotency_key=f"{job.key}-{attempt}",
            work_queue_name=placement.queue,
        )
        child = client.read_flow_run(started.id)
        if child.state is None or not child.state.is_final():
            return child, attempt
        outcome = read_outcome(job, attempt) if child.state.is_completed() else None
        if outcome and outcome.result is not None:
            result = node.returns.validate_python(outcome.result)
            if node.usable(result, job.place):
                return child, attempt
    raise AssertionError("count() has no end")


def _final_state(client: SyncPrefectClient, child: UUID, placement: StepPlacement) -> State[Any]:
    """Wait for the child's final state, and relay its log lines."""
    minutes = placement.timeout_minutes
    end = time.monotonic() + minutes * 60 if minutes else float("inf")
    shown = 0
    while True:
        state = client.read_flow_run(child).state
        ended = state is not None and state.is_final()
        if ended:  # the last log lines arrive when the child's process exits
            time.sleep(POLL_SECONDS)
        shown += _relay_log(client, child, shown)
        if state is not None and ended:
            return state
        if time.monotonic() > end:
            raise StepError(f"timed out after {minutes:g} minutes (timeout_minutes in compute)")
        time.sleep(POLL_SECONDS)


def _relay_log(client: SyncPrefectClient, child: UUID, shown: int) -> int:
    """Log the child's lines after the first ``shown``; return how many there were."""
    of_child = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[child]))
    lines = client.read_logs(of_child, offset=shown, sort=LogSort.TIMESTAMP_ASC)
    for line in lines:
        if line.name == logger.name:
            logger.log(line.level, "%s", line.message)
    return len(lines)
