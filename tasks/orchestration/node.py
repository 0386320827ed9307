"""Nodes: steps of the DAG as flows call them, with their cache keys.

A node names a plain function of the step's room and imports it when it is first needed. The cache
key consists of the step, the identity of the inputs, the seed and the version of the step's code;
for timings also of device, threads and libraries.
"""

import inspect
import logging
import time
from collections.abc import Callable
from functools import cache, cached_property
from importlib import import_module
from typing import Any, Generic, TypeVar, get_type_hints

from pydantic import BaseModel, TypeAdapter

from layerwright.tasks.contracts.base import identity
from layerwright.tasks.contracts.references import TreeRef
from layerwright.tasks.device import resolve_device, timed_on
from layerwright.tasks.orchestration.code_version import code_version
from layerwright.tasks.orchestration.job import Job
from layerwright.tasks.orchestration.place import NotCached, Place, Run
from layerwright.tasks.steps import Step, declarations

logger = logging.getLogger("layerwright")

Result = TypeVar("Result", bound=BaseModel)


class Node(Generic[Result]):
    """A node of the DAG. Flows call it with the step's inputs and ``run``.

    Args:
        step: the step; several nodes may belong to it.
        function: ``module.name`` of a function ``f(inputs..., ctx: Context) -> Result``.
        cached: reuse stored results; False for steps whose result depends on more than the key.
        timed: the result contains timings, so it is valid only for the device that measured them.
    """

    def __init__(
        self, step: Step, function: str, *, cached: bool = True, timed: bool = False
    ) -> None:
        self.step, self.cached, self.timed = step, cached, timed
        self.module, _, self.name = function.rpartition(".")

    @cached_property
    def function(self) -> Callable[..., Result]:
        return getattr(import_module(self.module), self.name)

    @cached_property
    def signature(self) -> inspect.Signature:
        """The function's signature without ``ctx``."""
        signature = inspect.signature(self.function)
        inputs = [p for name, p in signature.parameters.items() if name != "ctx"]
        return signature.replace(parameters=inputs)

    @cached_property
    def inputs(self) -> dict[str, TypeAdapter[Any]]:
        hints = get_type_hints(self.function)
        return {name: TypeAdapter(hints[name]) for name in self.signature.parameters}

    @cached_property
    def returns(self) -> TypeAdapter[Result]:
        return TypeAdapter(get_type_hints(self.function)["return"])

    def __call__(self, *args: Any, run: Run, **kwargs: Any) -> Result:
        """Return the step's result, from the cache or by running the step.

        Raises:
            NotCached: in a dry run, if the cache has no result.
        """
        job = self.job(run.place, *args, **kwargs)
        started = time.perf_counter()
        if run.dry:
            result = self._lookup(job)
            run.saw(self.step.name, 0.0, hit=result is not None)
            if result is None:
                raise NotCached(self.step.name)
            return result
        # imported here, because recipes read the declarations of steps and need no Prefect
        from layerwright.tasks.orchestration.prefect_task import prefect_task

        state = prefect_task(self, job)(job, return_state=True)
        value = state.result(raise_on_failure=True)
        hit = state.name == "Cached"
        seconds = time.perf_counter() - started
        run.saw(self.step.name, seconds, hit)
        logger.info("%-9s %s", self.step.name, "cached" if hit else f"done in {seconds:.1f} s")
        return self.returns.validate_python(value)

    def cached_result(self, *args: Any, place: Place, **kwargs: Any) -> Result | None:
        """The cached result for a step's inputs; None if there is none, or its trees are lost."""
        return self._lookup(self.job(place, *args, **kwargs))

    def job(self, place: Place, *args: Any, **kwargs: Any) -> Job:
        """The job of this node for these inputs, with its cache key."""
        given = self.signature.bind(*args, **kwargs).arguments
        inputs = {name: self.inputs[name].dump_python(v, mode="json") for name, v in given.items()}
        code = code_version(self.module, given.values()) if self.cached else ""
        parts: dict[str, Any] = {"inputs": inputs, "seed": place.seed, "code": code}
        if self.timed:
            placement = place.compute.of(self.step.name)
            if placement.pool:  # its workers have equal devices, maybe other ones than this process
                parts["timed_on"] = {"pool": placement.pool, "device": placement.device}
            else:
                parts["timed_on"] = timed_on(resolve_device(placement.device))
            # under a memory bound the step also reads weights from disk
            if memory_bytes := place.compute.memory_of(self.step.name):
                parts["memory_bytes"] = memory_bytes
        key = f"{self.step.name}-{identity(parts)[:40]}"
        return Job(node=self.name, inputs=inputs, place=place, key=key, code=code)

    def _lookup(self, job: Job) -> Result | None:
        result = self.stored(job)
        return result if result is not None and self.usable(result, job.place) else None

    def stored(self, job: Job) -> Result | None:
        """The stored result of a job; the store may lack its trees."""
        data = job.place.open_store().read(f"results/{job.key}") if self.cached else None
        if data is None:
            return None
        from prefect.results import ResultRecord

        return self.returns.validate_python(ResultRecord.deserialize(data).result)

    @staticmethod
    def usable(result: BaseModel, place: Place) -> bool:
        """Whether the store still has all trees that a result names."""
        parts = [result, *(getattr(result, name) for name in type(result).model_fields)]
        store = place.open_store()
        return all(store.has_tree(part.sha256) for part in parts if isinstance(part, TreeRef))


@cache
def nodes() -> dict[str, Node[Any]]:
    """All nodes of the DAG, by the names of their functions."""
    values = [value for module in declarations() for value in vars(module).values()]
    return {node.name: node for node in values if isinstance(node, Node)}
