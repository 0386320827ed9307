"""Build the Prefect task of a job: its cache, locks, retries, result storage and place."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import Task
from prefect.cache_policies import CacheKeyFnPolicy
from prefect.filesystems import WritableFileSystem
from prefect.transactions import IsolationLevel

from layerwright.tasks.orchestration.job import FINAL, Job, run_job
from layerwright.tasks.orchestration.locks import FileLocks, redis_locks
from layerwright.tasks.orchestration.work_pool import run_on_pool
from layerwright.tasks.store.local import LocalStore
from layerwright.tasks.store.open import open_store

if TYPE_CHECKING:
    from layerwright.tasks.orchestration.node import Node


class StoreResults(WritableFileSystem):
    """Prefect result storage in a store, so that results survive the loss of the Prefect server."""

    _block_type_name = "Layerwright store"
    _block_type_slug = "layerwright-store"

    uri: str
    cache: str

    # Prefect calls the async methods, or the sync ones with `_sync=True`

    def read_path(self, path: str, **form: Any) -> bytes:  # type: ignore[override]
        data = open_store(self.uri, Path(self.cache)).read(f"results/{path}")
        if data is None:
            raise ValueError(f"{self.uri} has no result {path}")
        return data

    def write_path(self, path: str, content: bytes, **form: Any) -> None:  # type: ignore[override]
        open_store(self.uri, Path(self.cache)).write(f"results/{path}", content)

    async def aread_path(self, path: str) -> bytes:
        return self.read_path(path)

    async def awrite_path(self, path: str, content: bytes) -> None:
        self.write_path(path, content)


@cache
def result_storage(uri: str, cache_folder: Path) -> Any:
    """Prefect's storage for the results of a run: ``results/`` in the run's store."""
    store = open_store(uri, cache_folder)
    if isinstance(store, LocalStore):
        return store.root / "results"
    block = StoreResults(uri=store.uri, cache=str(cache_folder))
    block.save("layerwright-results", overwrite=True)  # Prefect accepts only saved blocks
    return block


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
    stored = node.stored(job)
    # locks between runs on several machines are in Redis, those on one machine are files
    url = os.environ.get("LAYERWRIGHT_LOCKS")
    locks = redis_locks(url) if url else FileLocks(place.paths.locks)
    # if several runs need the same job at once, one executes it and the others wait for its result
    policy = CacheKeyFnPolicy(cache_key_fn=lambda context, parameters: job.key).configure(
        isolation_level=IsolationLevel.SERIALIZABLE, lock_manager=locks
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


def _worth_another_try(task: Any, run: Any, state: Any) -> bool:
    return not isinstance(state.result(raise_on_failure=False), FINAL)
