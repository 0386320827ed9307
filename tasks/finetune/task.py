"""The `finetune` node of the DAG."""

from tasks.context import Context
from tasks.contracts import CheckpointRef, ModelRef, TextRef
from tasks.node import node
from tasks.recipe import FinetuneOptions
from tasks.training_contracts import FinetuneReport


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
    from tasks.finetune.healing import finetune_model as finetune

    return finetune(base, checkpoint, text, held_out, options, ctx)
