"""How long the steps take that train, for the dry run."""

from __future__ import annotations

from itertools import dropwhile

from layerwright.tasks.components import build
from layerwright.tasks.contracts.references import ModelRef
from layerwright.tasks.finetune.objectives.base import LayerObjective, Objective
from layerwright.tasks.recipe.finetune import FinetuneOptions, HealingStage
from layerwright.tasks.recipe.recipe import Recipe


def regularize_seconds(recipe: Recipe, model: ModelRef, token_seconds: float) -> float:
    """The training, and a short one for each weight where several are tried."""
    options = recipe.regularize
    if options is None:
        return 0.0
    tried = options.sweep_steps * (len(options.weights) if len(options.weights) > 1 else 0)
    tokens = (options.steps + tried) * options.rows_per_step * options.row_tokens
    return tokens * (1 + 2.0) * token_seconds


def finetune_seconds(recipe: Recipe, model: ModelRef, token_seconds: float) -> float:
    """The stages, for the candidate and for the control arm."""
    options = recipe.finetune
    if options is None:
        return 0.0
    stages = list(options.stages)
    if recipe.evaluate and recipe.evaluate.control:
        # the control arm skips the first stages that could only teach the base what it knows
        stages += dropwhile(
            lambda stage: all(build(Objective, spec).needs_base for spec in stage.objectives),
            options.stages,
        )
    return sum(_stage_tokens(options, stage) for stage in stages) * token_seconds


def _stage_tokens(options: FinetuneOptions, stage: HealingStage) -> float:
    """Forward and backward of the student, forward of the base, validation."""
    objectives = [build(Objective, spec) for spec in stage.objectives]
    local = all(isinstance(objective, LayerObjective) for objective in objectives)
    # frozen weights need no gradient of their own; a mixer is about a third of a layer
    student = 1 / 3 if local else 1.0
    backward = 2.0 if stage.adapter.kind == "full" else 1.2
    again = 1.0 if stage.gradient_checkpointing else 0.0
    base = 1.0 if any(objective.needs_base for objective in objectives) else 0.0
    tokens = stage.steps * stage.rows_per_step * options.row_tokens
    cost = tokens * (student * (1 + backward + again) + base)
    if held_out := options.validation:
        measured = 2 + tokens // held_out.every_tokens
        cost += measured * held_out.rows * options.row_tokens * 2
    return cost
