"""The nodes of the DAG that train: `regularize` before the conversion, `finetune` after it."""

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.plan import ConversionPlan
from layerwright.tasks.contracts.references import CheckpointRef, ModelRef, TextRef
from layerwright.tasks.contracts.training import FinetuneReport, RegularizationReport
from layerwright.tasks.orchestration.node import node
from layerwright.tasks.recipe.finetune import FinetuneOptions
from layerwright.tasks.recipe.regularize import RegularizeOptions


@node("finetune")
def finetune_model(
    base: ModelRef,
    checkpoint: CheckpointRef,
    text: TextRef,
    held_out: TextRef | None,
    options: FinetuneOptions,
    *,
    ctx: Context,
) -> FinetuneReport:
    """Heal a converted checkpoint in stages, the base as teacher; the result is merged."""
    from layerwright.tasks.finetune.processes import run_training

    inputs = {
        "base": base,
        "checkpoint": checkpoint,
        "text": text,
        "held_out": held_out,
        "options": options,
    }
    return run_training("finetune", inputs, ctx)


@node("regularize")
def regularize_model(
    model: ModelRef,
    plan: ConversionPlan,
    text: TextRef,
    held_out: TextRef | None,
    options: RegularizeOptions,
    *,
    ctx: Context,
) -> RegularizationReport:
    """Train a base so that the layers that a plan takes out can go (TRSP, stage 2)."""
    from layerwright.tasks.finetune.processes import run_training

    inputs = {
        "model": model,
        "plan": plan,
        "text": text,
        "held_out": held_out,
        "options": options,
    }
    return run_training("regularize", inputs, ctx)
