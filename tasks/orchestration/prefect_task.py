"""Build the Prefect task of a job: its cache, locks, retries, and where it is executed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from prefect import Task
from prefect.cache_policies import CacheKeyFnPolicy
from prefect.locking.protocol import LockManager
from prefect.transactions import IsolationLevel

from layerwright.tasks.orchestration.job import FINAL, Job, run_job
from layerwright.tasks.orchestration.locks import FileLocks, redis_locks
from layerwright.tasks.orchestration.place import Place
from layerwright.tasks.orchestration.result_storage import result_storage
from layerwright.tasks.orchestration.work_pool import run_on_pool

if TYPE_CHECKING:
    from layerwright.tasks.orchestration.node import Node


def prefect_task(node: Node[Any], job: Job) -> Any:
    """A task that takes ``job`` and returns the JSON of its result."""
    place, name = job.place, node.step.name
    placement = place.compute.of(name)
    options: dict[str, Any] = {
        "name": name,
        "task_run_name": name,
        "description": node.function.__doc__,
        "persist_result": node.cached,
    }
    if not node.cached:
        return Task(run_job, **options)
    stored = node.stored(job.key, place)
    # if several runs need the same job at once, one executes it and the others wait for its result
    policy = CacheKeyFnPolicy(cache_key_fn=lambda context, parameters: job.key).configure(
        isolation_level=IsolationLevel.SERIALIZABLE, lock_manager=_locks(place)
    )
    options |= {
        "result_serializer": "json",
        "result_storage": result_storage(place.store, place.paths.trees),
        "cache_policy": policy,
        # a cached result is invalid if the store lost its tree, which Prefect does not check
        "refresh_cache": stored is not None and not node.usable(stored, place),
        "retries": placement.retries,
        "retry_condition_fn": _worth_another_try,
    }
    return Task(run_on_pool if placement.pool else run_job, **options)


def _locks(place: Place) -> LockManager:
    """Locks in the Redis at LAYERWRIGHT_LOCKS, for runs on several machines; otherwise files."""
    url = os.environ.get("LAYERWRIGHT_LOCKS")
    return redis_locks(url) if url else FileLocks(place.paths.locks)


def _worth_another_try(task: Any, run: Any, state: Any) -> bool:
    return not isinstance(state.result(raise_on_failure=False), FINAL)
