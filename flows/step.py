"""The child flow: one step's plain function, on a machine that the parent chose.

The parent's node owns the cache key and decides; this runs the work once and returns JSON.
"""

from __future__ import annotations

from typing import Any

from prefect import flow

from tasks.choose.task import choose_plan
from tasks.convert.task import convert_model
from tasks.costs.task import measure_costs
from tasks.evaluate.task import evaluate_models, measure_plans
from tasks.fetch.task import fetch_model, fetch_text
from tasks.finetune.task import finetune_model, regularize_model
from tasks.node import Place
from tasks.profile.task import profile_model

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
def step(name: str, inputs: dict[str, Any], place: Place, key: str) -> dict[str, Any]:
    """Run the step function ``name`` on its inputs, at ``place``.

    Args:
        name: the function's name, as in ``HEAVY``.
        inputs: the JSON of each input contract.
        key: the parent's cache key; names the work folder, so that a retry goes on.
    """
    return HEAVY[name].execute(inputs, place, key)
