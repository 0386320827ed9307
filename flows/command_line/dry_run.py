"""What a run would do: which steps are cached, and rough time, memory and disk of the others."""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import dropwhile
from typing import Any

from layerwright.flows.session.launch import Launch
from layerwright.tasks.choose.base import KEEP, Selector
from layerwright.tasks.components import build
from layerwright.tasks.contracts.references import ModelRef
from layerwright.tasks.evaluate.base import Metric
from layerwright.tasks.finetune.objectives.base import LayerObjective, Objective
from layerwright.tasks.profile.base import Profiler
from layerwright.tasks.recipe.finetune import FinetuneOptions, HealingStage
from layerwright.tasks.recipe.recipe import STEPS, Recipe

PROFILE_FORWARDS = 1.6  # what a token of the profile costs, in plain forward passes over it
# steps that a recipe may leave out, by the block that asks for them
OPTIONAL = {"measure_costs": "costs", "regularize": "regularize", "finetune": "finetune"}


def dry_run(launch: Launch) -> dict[str, Any]:
    """Walk the DAG along the cache until the first step that must do its work.

    Returns:
        ``{"steps": [{"step", "state", "seconds"}], "memory_bytes", "disk_bytes", "basis"}``.
        Times are estimates from a matrix product timed now, good to a factor of about two.
    """
    from layerwright.flows.convert import conversion
    from layerwright.tasks.fetch.task import fetch_model
    from layerwright.tasks.orchestration.place import NotCached, Run

    run = Run(launch.place, dry=True)
    model: ModelRef | None = None
    recipe = launch.recipe
    try:
        model = fetch_model(
            recipe.model, recipe.data_root, launch.pins["model"], run=Run(launch.place, dry=True)
        )
        conversion(recipe, launch.pins, "dry-run", run, launch.plan)
    except NotCached:
        pass
    if model is None:
        run.hits["fetch"] = False
    parameters = model.parameters if model else None
    estimates = _seconds(recipe, parameters, model.layers if model else 0) if parameters else {}
    steps = [
        {
            "step": step,
            "state": "cached" if run.hits.get(step) else "to do",
            "seconds": 0.0 if run.hits.get(step) else estimates.get(step),
        }
        for step in STEPS
        if step not in OPTIONAL or getattr(recipe, OPTIONAL[step])
    ]
    width = 4
    return {
        "steps": steps,
        # base, candidate and their logits; training keeps a gradient path besides
        "memory_bytes": int(2.5 * parameters * width + 1.6e9) if parameters else None,
        "disk_bytes": 3 * parameters * width if parameters else None,
        "basis": "measured matrix product" if parameters else "unknown until the model is fetched",
    }


def _seconds(recipe: Recipe, parameters: int, layers: int) -> dict[str, float]:
    """Seconds per step from token counts: 2 flops per parameter and token, at a measured rate."""
    per_token = 2 * parameters / _flops_per_second()
    profiled = recipe.profile.rows * recipe.profile.row_tokens * PROFILE_FORWARDS
    profiled += sum(
        build(Profiler, spec).estimate_tokens(layers, len(recipe.choose.strategies))
        for spec in recipe.profile.profilers
    )
    selector = build(Selector, recipe.choose.selector)
    tried = selector.estimate_tokens(layers, recipe.profile.row_tokens)
    trained = _training_tokens(recipe)
    arms = 3 if recipe.evaluate.control else 2
    metrics = [build(Metric, spec) for spec in recipe.evaluate.metrics]
    passes = {text_pass for metric in metrics for text_pass in metric.passes()}  # shared ones once
    evaluated = sum(text_pass.tokens for text_pass in passes)
    evaluated = arms * (evaluated + sum(metric.estimate_tokens() for metric in metrics))
    return {
        "profile": round(profiled * per_token, 1),
        "measure_costs": round(_timed_tokens(recipe) * per_token, 1),
        "choose": round(0.1 + tried * per_token, 1),
        "convert": round(8 * parameters / 300e6, 1),
        "regularize": round(trained["regularize"] * per_token, 1),
        "finetune": round(trained["finetune"] * per_token, 1),
        "evaluate": round(evaluated * per_token, 1),
        "gate": 0.1,
        "register": 5.0,
    }


def _timed_tokens(recipe: Recipe) -> int:
    """What timing the layers takes, as if each kind of layer took what the base's do."""
    if recipe.costs is None:
        return 0
    options, choose = recipe.costs, recipe.choose
    lengths = options.context_tokens or (choose.context_tokens,)
    kinds = sum(spec.name not in (KEEP, "remove") for spec in choose.strategies) + 2  # base, mixed
    rounds = (options.repeats + 1) * options.batch
    return kinds * rounds * sum(tokens + options.decode_tokens for tokens in lengths)


def _training_tokens(recipe: Recipe) -> dict[str, float]:
    """What each training costs, in forward passes over a token."""
    found = {"regularize": 0.0, "finetune": 0.0}
    if heal := recipe.finetune:
        stages = [*heal.stages, *(_control_stages(heal) if recipe.evaluate.control else ())]
        found["finetune"] = sum(_stage_tokens(heal, stage) for stage in stages)
    if before := recipe.regularize:
        tried = before.sweep_steps * (len(before.weights) if len(before.weights) > 1 else 0)
        per_step = before.rows_per_step * before.row_tokens * (1 + 2.0)
        found["regularize"] = (before.steps + tried) * per_step
    return found


def _control_stages(heal: FinetuneOptions) -> Iterable[HealingStage]:
    """What the control arm is trained on: all from the first that teaches the base something."""
    return dropwhile(
        lambda stage: all(build(Objective, spec).needs_base for spec in stage.objectives),
        heal.stages,
    )


def _stage_tokens(heal: FinetuneOptions, stage: HealingStage) -> float:
    """Forward and backward of the student, forward of the base, validation."""
    objectives = [build(Objective, spec) for spec in stage.objectives]
    local = all(isinstance(objective, LayerObjective) for objective in objectives)
    # frozen weights need no gradient of their own; a mixer is about a third of a layer
    student = 1 / 3 if local else 1.0
    backward = 2.0 if stage.adapter.kind == "full" else 1.2
    again = 1.0 if stage.gradient_checkpointing else 0.0
    base = 1.0 if any(objective.needs_base for objective in objectives) else 0.0
    tokens = stage.steps * stage.rows_per_step * heal.row_tokens
    cost = tokens * (student * (1 + backward + again) + base)
    if held_out := heal.validation:
        measured = 2 + tokens // held_out.every_tokens
        cost += measured * held_out.rows * heal.row_tokens * 2
    return cost


def _flops_per_second(size: int = 768, repeats: int = 5) -> float:
    import torch

    a = torch.randn(size, size)
    a @ a  # the first product pays for start-up
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - started)
    return 2 * size**3 / sorted(times)[repeats // 2]
