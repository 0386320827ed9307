"""Estimate the time of the training steps, for the dry run."""

from itertools import dropwhile

from layerwright.tasks.contracts.references import ModelRef
from layerwright.tasks.finetune.objectives.base import LayerObjective
from layerwright.tasks.recipe.recipe import Recipe
from layerwright.tasks.recipe.training import FinetuneOptions, HealingStage


def regularize_seconds(recipe: Recipe, model: ModelRef, token_seconds: float) -> float:
    """Estimate the time of the training, and of the sweep if there are several weights."""
    if (options := recipe.regularize) is None:
        return 0.0
    sweep = options.sweep_steps * (len(options.weights) if len(options.weights) > 1 else 0)
    tokens = (options.steps + sweep) * options.rows_per_step * options.row_tokens
    return tokens * (1 + 2.0) * token_seconds


def finetune_seconds(recipe: Recipe, model: ModelRef, token_seconds: float) -> float:
    """Estimate the time of all stages, for the candidate and for the control arm."""
    if (options := recipe.finetune) is None:
        return 0.0
    stages = list(options.stages)
    if recipe.evaluate and recipe.evaluate.control:
        # the control arm skips its first stages if all their objectives compare with the base
        stages += dropwhile(lambda stage: all(o.needs_base for o in stage.objectives), stages[:])
    return sum(_stage_tokens(options, stage) for stage in stages) * token_seconds


def _stage_tokens(options: FinetuneOptions, stage: HealingStage) -> float:
    """Cost of a stage in forward passes over a token: student, base and validation."""
    local = all(isinstance(objective, LayerObjective) for objective in stage.objectives)
    student = 1 / 3 if local else 1.0  # a mixer is about a third of a layer
    backward = 2.0 if stage.adapter.kind == "full" else 1.2  # no gradients of frozen weights
    recomputation = 1.0 if stage.gradient_checkpointing else 0.0
    base = 1.0 if any(objective.needs_base for objective in stage.objectives) else 0.0
    tokens = stage.steps * stage.rows_per_step * options.row_tokens
    cost = tokens * (student * (1 + backward + recomputation) + base)
    if held_out := options.validation:
        validations = 2 + tokens // held_out.every_tokens
        cost += validations * held_out.rows * options.row_tokens * 2
    return cost
