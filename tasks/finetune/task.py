"""The nodes of the DAG that train: `regularize` before the conversion, `finetune` after it."""

from tasks.context import Context
from tasks.contracts import CheckpointRef, ConversionPlan, ModelRef, TextRef
from tasks.node import node
from tasks.training_contracts import FinetuneReport, RegularizationReport
from tasks.training_recipe import FinetuneOptions, RegularizeOptions


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
    from tasks.finetune.processes import run_training

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
    from tasks.finetune.processes import run_training

    inputs = {
        "model": model,
        "plan": plan,
        "text": text,
        "held_out": held_out,
        "options": options,
    }
    return run_training("regularize", inputs, ctx)
