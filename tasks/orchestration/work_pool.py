"""A step on a worker of a Prefect work pool: a child flow run of the deployment ``step/<pool>``.

The parent's node keeps the cache key and decides how often the step is tried; the child runs the
plain step once and lays its result, or the error that it met, into the store. An attempt has a name
of its own (key and number), so that a parent that was killed and started again finds the child that
is still at work, and one that failed is never mistaken for a new one.
"""

from __future__ import annotations

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
from layerwright.tasks.recipe.compute import Placement

logger = logging.getLogger("layerwright")

POLL_SECONDS = 2.0


def run_on_pool(job: Job) -> dict[str, Any]:
    """Have a worker of the step's pool do a job, and wait for its result.

    Raises:
        StepError: the child failed, was lost, was cancelled or ran out of time.
        LayerwrightError: what the step itself raised on the worker.
    """
    step = node_of(job).step.name
    placement = job.place.compute.of(step)
    logger.info("%-9s given to the pool %s", step, placement.pool)
    with get_client(sync_client=True) as client:
        child, attempt = _child(client, job, placement)
        try:
            state = _watched(client, child.id, placement)
        except BaseException:  # this run ends: so does the work that it asked for
            client.set_flow_run_state(child.id, Cancelling())
            raise
    outcome = taken(job, attempt)
    if outcome and outcome.error:
        outcome.raised()
    if not state.is_completed() or outcome is None:
        raise StepError(
            f"{job.node} on the pool {placement.pool!r}: the child run {child.name} ended as "
            f"{state.name}{f' ({state.message})' if state.message else ''}; its log: "
            f"prefect flow-run logs {child.id}"
        )
    return outcome.raised()


def slots_of(pool: str | None) -> str:
    """The name of the global concurrency limit that counts a pool's slots."""
    return f"{pool}-slots"


def hand_over(job: Job, attempt: int, outcome: Outcome) -> None:
    """From the child to the parent."""
    place = f"handed/{job.key}-{attempt}.json"
    job.place.open_store().write(place, outcome.model_dump_json().encode())


def taken(job: Job, attempt: int) -> Outcome | None:
    """The outcome that the child of an attempt handed over, if it came so far."""
    data = job.place.open_store().read(f"handed/{job.key}-{attempt}.json")
    return None if data is None else Outcome.model_validate_json(data)


def _child(client: SyncPrefectClient, job: Job, placement: Placement) -> tuple[FlowRun, int]:
    """The first attempt that is not spent: one still at work, one that is done, or a new one."""
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
        outcome = taken(job, attempt) if child.state.is_completed() else None
        if outcome and outcome.result is not None and _usable(job, outcome.result):
            return child, attempt
    raise AssertionError("count() has no end")


def _usable(job: Job, result: dict[str, Any]) -> bool:
    """Whether the store still has what a result names: else another attempt makes it again."""
    node = node_of(job)
    return node.usable(node.returns.validate_python(result), job.place)


def _watched(client: SyncPrefectClient, child: UUID, placement: Placement) -> State[Any]:
    """The child's last state; its log lines are said here as they come."""
    minutes = placement.timeout_minutes
    end = time.monotonic() + minutes * 60 if minutes else float("inf")
    shown = 0
    while True:
        state = client.read_flow_run(child).state
        ended = state is not None and state.is_final()
        if ended:  # its last lines are sent as its process ends
            time.sleep(POLL_SECONDS)
        shown += _relayed(client, child, shown)
        if state is not None and ended:
            return state
        if time.monotonic() > end:
            raise StepError(f"stopped after {minutes:g} minutes, as compute.steps says")
        time.sleep(POLL_SECONDS)


def _relayed(client: SyncPrefectClient, child: UUID, shown: int) -> int:
    """Say the log lines that came since the first ``shown``; returns how many came."""
    lines = client.read_logs(
        LogFilter(flow_run_id=LogFilterFlowRunId(any_=[child])),
        offset=shown,
        sort=LogSort.TIMESTAMP_ASC,
    )
    for line in lines:
        if line.name == logger.name:
            logger.log(line.level, "%s", line.message)
    return len(lines)
