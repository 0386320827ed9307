"""A step on a worker of a Prefect work pool: a child flow run of the deployment ``step/<pool>``.

The parent's node keeps the cache key and decides how often the step is tried; the child runs the
plain step once and lays its result, or the error that it met, into the store. An attempt has a name
of its own (key and number), so that a parent that was killed and started again finds the child that
is still at work, and one that failed is never mistaken for a new one.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from itertools import count
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.sorting import LogSort
from prefect.deployments import run_deployment
from prefect.states import Cancelling

from layerwright.tasks.errors import InputError, IntegrityError, LayerwrightError, StepError
from layerwright.tasks.recipe.compute import Placement
from layerwright.tasks.store.base import Store

logger = logging.getLogger("layerwright")

POLL_SECONDS = 2.0
FINAL = (InputError, IntegrityError)  # another worker would meet them as well
ERRORS = {kind.__name__: kind for kind in (*FINAL, StepError)}


def run_on_pool(
    name: str,
    parameters: dict[str, Any],
    key: str,
    placement: Placement,
    store: Store,
    usable: Callable[[dict[str, Any]], bool],
) -> dict[str, Any]:
    """Have the step function ``name`` run on the pool, and wait for its result.

    Args:
        parameters: of the flow ``step`` (flows/step.py), but ``key`` and ``attempt``.
        usable: whether the store still has what a result names; an attempt whose result is not
            usable any more is not taken again.

    Raises:
        StepError: the child failed, was lost, was cancelled or ran out of time.
        LayerwrightError: what the step itself raised on the worker.
    """
    with get_client(sync_client=True) as client:
        child, attempt = _child(client, name, parameters, key, placement, store, usable)
        try:
            state = _watched(client, child.id, placement)
        except BaseException:  # this run ends: so does the work that it asked for
            client.set_flow_run_state(child.id, Cancelling())
            raise
    handed = taken(store, key, attempt)
    if handed and (error := handed.get("error")):
        raise _error(error)
    if not state.is_completed() or handed is None:
        raise StepError(
            f"{name} on the pool {placement.pool!r}: the child run {child.name} ended as "
            f"{state.name}{f' ({state.message})' if state.message else ''}; its log: "
            f"prefect flow-run logs {child.id}"
        )
    return handed["result"]


def slots_of(pool: str | None) -> str:
    """The name of the global concurrency limit that counts a pool's slots."""
    return f"{pool}-slots"


def hand_over(store: Store, key: str, attempt: int, content: dict[str, Any]) -> None:
    """From the child to the parent."""
    store.write(f"handed/{key}-{attempt}.json", json.dumps(content).encode())


def taken(store: Store, key: str, attempt: int) -> dict[str, Any] | None:
    """What the child of an attempt handed over, if it came so far."""
    data = store.read(f"handed/{key}-{attempt}.json")
    return None if data is None else json.loads(data)


def described(error: LayerwrightError) -> dict[str, Any]:
    """An error as JSON, for `hand_over`."""
    if isinstance(error, InputError):
        names = ("message", "where", "expected", "remedy")
        return {"kind": "InputError"} | {name: getattr(error, name) for name in names}
    return {"kind": type(error).__name__, "message": str(error)}


def _error(described: dict[str, Any]) -> LayerwrightError:
    kind = ERRORS.get(described.pop("kind"), StepError)
    return kind(described.pop("message"), **described)


def _child(
    client: SyncPrefectClient,
    name: str,
    parameters: dict[str, Any],
    key: str,
    placement: Placement,
    store: Store,
    usable: Callable[[dict[str, Any]], bool],
) -> tuple[FlowRun, int]:
    """The first attempt that is not spent: one still at work, one that is done, or a new one."""
    for attempt in count(1):
        child = run_deployment(
            f"step/{placement.pool}",
            parameters=parameters | {"key": key, "attempt": attempt},
            flow_run_name=f"{name} {key[-8:]} {attempt}",
            timeout=0,
            idempotency_key=f"{key}-{attempt}",
            work_queue_name=placement.queue,
        )
        child = client.read_flow_run(child.id)
        if child.state is None or not child.state.is_final():
            return child, attempt
        handed = taken(store, key, attempt) if child.state.is_completed() else None
        if handed and "result" in handed and usable(handed["result"]):
            return child, attempt
    raise AssertionError("count() has no end")


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
