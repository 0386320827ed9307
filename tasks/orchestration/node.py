"""What makes a step's plain function a node of the DAG: Prefect task, cache key, place.

The node in the parent flow owns the cache key: step, identity of the inputs, seed, version of the
step's code, and for timings the device, threads and libraries. What runs behind it, here or in a
child flow, is the plain function, once, on JSON that either side can read.
"""

from __future__ import annotations

import inspect
import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar, get_type_hints

from prefect import task
from prefect.cache_policies import CacheKeyFnPolicy
from prefect.locking.protocol import LockManager
from prefect.results import ResultRecord
from prefect.transactions import IsolationLevel
from pydantic import BaseModel, TypeAdapter

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.base import identity
from layerwright.tasks.contracts.references import TreeRef
from layerwright.tasks.device import resolve_device, timed_on
from layerwright.tasks.disk import told_when_full
from layerwright.tasks.orchestration.code_version import code_version
from layerwright.tasks.orchestration.locks import FileLocks, redis_locks
from layerwright.tasks.orchestration.place import NotCached, Place, Run
from layerwright.tasks.orchestration.result_storage import result_storage
from layerwright.tasks.orchestration.work_pool import FINAL, run_on_pool
from layerwright.tasks.tracking import Tracking

logger = logging.getLogger("layerwright")

P = ParamSpec("P")
Result = TypeVar("Result", bound=BaseModel)


class Node(Generic[P, Result]):
    """A step of the DAG. Call it inside a flow with the step's inputs and ``run``."""

    def __init__(
        self, step: str, function: Callable[..., Result], *, cached: bool, timed: bool
    ) -> None:
        self.step, self.function, self.cached, self.timed = step, function, cached, timed
        self.returns = TypeAdapter(get_type_hints(function)["return"])
        self.inputs = {
            name: TypeAdapter(hint)
            for name, hint in get_type_hints(function).items()
            if name not in ("ctx", "return")
        }
        self.__doc__ = function.__doc__
        self.task = task(
            self._execute,
            name=step,
            task_run_name=step,
            description=function.__doc__,
            persist_result=cached,
            result_serializer="json",
        )

    def __call__(self, *args: Any, run: Run, **kwargs: Any) -> Result:
        """Run the step, or answer from the cache.

        Raises:
            NotCached: in a dry run, where the answer is not in the cache.
        """
        bound = inspect.signature(self.function).bind(*args, ctx=None, **kwargs).arguments
        inputs = {
            name: adapter.dump_python(bound[name], mode="json")
            for name, adapter in self.inputs.items()
            if name in bound
        }
        key = self.key(inputs, run.place)
        started = time.perf_counter()
        if run.dry:
            found = self.lookup(key, run.place)
            run.saw(self.step, 0.0, hit=found is not None)
            if found is None:
                raise NotCached(self.step)
            return found
        state = self._placed(key, run.place)(inputs, run.place, key, return_state=True)
        value = state.result(raise_on_failure=True)
        hit = state.name == "Cached"
        seconds = time.perf_counter() - started
        run.saw(self.step, seconds, hit)
        logger.info("%-9s %s", self.step, "cached" if hit else f"done in {seconds:.1f} s")
        return self.returns.validate_python(value)

    def key(self, inputs: dict[str, Any], place: Place) -> str:
        """The cache key: equal keys mean interchangeable results."""
        parts: dict[str, Any] = {
            "inputs": inputs,
            "seed": place.seed,
            "code": code_version(self.function.__module__),
        }
        if self.timed:
            parts["timed_on"] = self._timed_on(place)
            if memory_bytes := place.compute.memory_of(self.step):  # streamed weights take time
                parts["memory_bytes"] = memory_bytes
        return f"{self.step}-{identity(parts)[:40]}"

    def _timed_on(self, place: Place) -> dict[str, str]:
        placement = place.compute.of(self.step)
        if placement.pool:  # whose workers are alike; this process may have other devices
            return {"pool": placement.pool, "device": placement.device}
        return timed_on(resolve_device(placement.device))

    def lookup(self, key: str, place: Place) -> Result | None:
        """The cached result under a key, or None."""
        found = self._stored(key, place)
        return found if found is not None and self._whole(found, place) else None

    def _stored(self, key: str, place: Place) -> Result | None:
        data = place.open_store().read(f"results/{key}") if self.cached else None
        if data is None:
            return None
        return self.returns.validate_python(ResultRecord.deserialize(data).result)

    @staticmethod
    def _whole(result: BaseModel, place: Place) -> bool:
        """Whether the store still has every tree that a result names."""
        parts = [result, *(getattr(result, name) for name in type(result).model_fields)]
        store = place.open_store()
        return all(store.has_tree(part.sha256) for part in parts if isinstance(part, TreeRef))

    def execute(self, inputs: dict[str, Any], place: Place, key: str) -> dict[str, Any]:
        """The plain step on JSON: what a child flow on another machine would run too."""
        arguments = {name: self.inputs[name].validate_python(v) for name, v in inputs.items()}
        workdir = Path(place.home) / "work" / key
        workdir.mkdir(parents=True, exist_ok=True)
        placement = place.compute.of(self.step)
        context = Context(
            store=place.open_store(),
            workdir=workdir,
            seed=place.seed,
            device=resolve_device(placement.device),
            processes=placement.processes,
            memory_bytes=place.compute.memory_of(self.step),
            tracking=Tracking(uri=place.tracking_uri, run_id=place.run_id, step=self.step, key=key)
            if place.tracking_uri
            else None,
            log=logger.info,
        )
        with told_when_full(place.home):
            result = self.function(**arguments, ctx=context)
        shutil.rmtree(workdir, ignore_errors=True)
        return self.returns.dump_python(result, mode="json")

    def _execute(self, inputs: dict[str, Any], place: Place, key: str) -> dict[str, Any]:
        placement = place.compute.of(self.step)
        if placement.pool is None:
            logger.info("%-9s started", self.step)
            return self.execute(inputs, place, key)
        logger.info("%-9s given to the pool %s", self.step, placement.pool)
        return run_on_pool(
            self.function.__name__,
            {
                "name": self.function.__name__,
                "inputs": inputs,
                "place": place.model_dump(mode="json"),
                "code": code_version(self.function.__module__),
            },
            key,
            placement,
            place.open_store(),
            lambda value: self._whole(self.returns.validate_python(value), place),
        )

    def _placed(self, key: str, place: Place) -> Any:
        """The Prefect task with this run's cache key, result storage, locks and retries."""
        if not self.cached:
            return self.task
        policy = CacheKeyFnPolicy(cache_key_fn=lambda context, parameters: key)
        stored = self._stored(key, place)
        return self.task.with_options(
            # a result whose tree is gone must not answer; Prefect alone cannot know that
            refresh_cache=stored is not None and not self._whole(stored, place),
            # runs that need the same step at once share it: one works, the others wait and read
            cache_policy=policy.configure(
                isolation_level=IsolationLevel.SERIALIZABLE,
                lock_manager=_locks(place.home),
            ),
            result_storage=result_storage(place.store, place.tree_cache),
            retries=place.compute.of(self.step).retries,
            retry_condition_fn=_worth_another_try,
        )


def _locks(home: str) -> LockManager:
    """Redis where LAYERWRIGHT_LOCKS names one, for parents on several machines; else files."""
    url = os.environ.get("LAYERWRIGHT_LOCKS")
    return redis_locks(url) if url else FileLocks(Path(home) / "locks")


def _worth_another_try(task: Any, run: Any, state: Any) -> bool:
    return not isinstance(state.result(raise_on_failure=False), FINAL)


def node(
    step: str, *, cached: bool = True, timed: bool = False
) -> Callable[[Callable[..., Result]], Node[..., Result]]:
    """Decorate ``f(inputs..., *, ctx: Context) -> Contract`` to be the node of a step.

    Args:
        step: the DAG's verb; several nodes may belong to one step.
        cached: keep results by key. Off for what must be judged anew each time.
        timed: the result holds timings, so it is only good where they were taken.
    """
    return lambda function: Node(step, function, cached=cached, timed=timed)
