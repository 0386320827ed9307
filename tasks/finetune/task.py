"""The `finetune` node of the DAG."""

from tasks.context import Context
from tasks.contracts import CheckpointRef, FinetuneReport, ModelRef, TextRef
from tasks.node import node
from tasks.recipe import FinetuneOptions


@node("finetune")
def finetune_model(
    base: ModelRef,
    checkpoint: CheckpointRef,
    text: TextRef,
    options: FinetuneOptions,
    *,
    ctx: Context,
) -> FinetuneReport:
    """Heal a converted checkpoint with LoRA, the base as teacher; the result is merged."""
    from tasks.finetune.healing import finetune_model as finetune

    return finetune(base, checkpoint, text, options, ctx)
