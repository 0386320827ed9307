"""The child flow: one step's plain function, on a machine that the parent chose.

The parent's node owns the cache key and decides; this runs the work once
(tasks/orchestration/work_pool.py).
"""

from __future__ import annotations

import logging
import os
from typing import Any

from prefect import flow
from prefect.concurrency.sync import concurrency

from layerwright.tasks.choose.task import choose_plan
from layerwright.tasks.convert.task import convert_model
from layerwright.tasks.costs.task import measure_costs
from layerwright.tasks.errors import LayerwrightError, StepError
from layerwright.tasks.evaluate.task import evaluate_models, measure_plans
from layerwright.tasks.fetch.task import fetch_model, fetch_text
from layerwright.tasks.finetune.task import finetune_model, regularize_model
from layerwright.tasks.orchestration.code_version import code_version
from layerwright.tasks.orchestration.place import Place
from layerwright.tasks.orchestration.work_pool import described, hand_over, slots_of
from layerwright.tasks.profile.task import profile_model

LEASE_SECONDS = 90  # the slots of a process that was lost are free after so long
HEAVY = {
    node.function.__name__: node
    for node in (
        fetch_model,
        fetch_text,
        profile_model,
        measure_costs,
        choose_plan,
        regularize_model,
        convert_model,
        finetune_model,
        evaluate_models,
        measure_plans,
    )
}


@flow(name="step", flow_run_name="{name}", validate_parameters=False)
def step(
    name: str, inputs: dict[str, Any], place: dict[str, Any], key: str, attempt: int, code: str
) -> None:
    """Run the step function ``name`` on its inputs, and hand its result over through the store.

    The pool's slots are held while it works. LAYERWRIGHT_HOME, if the worker has it, is where it
    works; a worker that sees the parent's home goes on from what an earlier attempt left there.

    Args:
        name: the function's name, as in ``HEAVY``.
        inputs: the JSON of each input contract.
        place: the JSON of the parent's `Place`.
        key: the parent's cache key; names the work folder, so that a retry goes on.
        attempt: the number of this child among those for the same key.
        code: the version of the step's code that the parent's key stands for.
    """
    logging.getLogger("layerwright").setLevel(logging.INFO)
    node, here = HEAVY[name], Place.model_validate(place)
    here = here.model_copy(update={"home": os.environ.get("LAYERWRIGHT_HOME", here.home)})
    store, placement = here.open_store(), here.compute.of(node.step)
    try:
        if code != code_version(node.function.__module__):
            raise StepError(
                f"the worker has another version of the code of {name} than the run that asks: "
                "give both the same commit"
            )
        slots = slots_of(placement.pool)
        with concurrency(slots, occupy=placement.slots, lease_duration=LEASE_SECONDS, strict=True):
            result = node.execute(inputs, here, key)
    except LayerwrightError as error:
        hand_over(store, key, attempt, {"error": described(error)})
        raise
    hand_over(store, key, attempt, {"result": result})
