"""Healing: a short training that recovers quality after the conversion."""

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.base import identity
from layerwright.tasks.contracts.references import CheckpointRef, ModelRef, TextRef
from layerwright.tasks.contracts.training import FinetuneReport
from layerwright.tasks.finetune.setup import TrainingSetup, stored, totals
from layerwright.tasks.finetune.snapshot import TrainingState
from layerwright.tasks.models.loading import load_base, load_checkpoint
from layerwright.tasks.recipe.training import FinetuneOptions


def finetune_model(
    base: ModelRef,
    checkpoint: CheckpointRef,
    text: TextRef,
    held_out: TextRef | None,
    options: FinetuneOptions,
    ctx: Context,
) -> FinetuneReport:
    """Train a converted checkpoint in stages, with its base as teacher, and merge the weights.

    The checkpoint of a plan that keeps every layer is the control arm: the base, trained on the
    same rows in the same order. Stages that cannot change it are skipped. A text with fewer rows
    than the stages need is read several times, each time in a new order; the log and the lineage
    state the number of passes.

    The training state is saved in ``ctx.workdir``. A later call with the same inputs resumes from
    it and gives, on the same machine, the same weights as an uninterrupted run.

    The report's checkpoint has the files of ``checkpoint`` with the trained weights replaced and
    ``layerwright.json`` extended. Of several processes, use the first one's report. InputError if a
    text gives no row, or the options train nothing. StepError if the loss is not finite; the last
    saved training state is kept.
    """
    inputs = identity([base, checkpoint, text, held_out, options, ctx.seed])
    folder, source = ctx.store.open_tree(base.sha256), ctx.store.open_tree(checkpoint.sha256)
    setup = TrainingSetup("finetune", folder, source, text, held_out, options, ctx, inputs)
    rows = len(setup.rows)
    passes = sum(stage.steps * stage.rows_per_step for stage in options.stages) / rows
    ctx.log(f"finetune: {len(options.stages)} stages, {passes:.2f} passes over {rows} rows")
    state = _train(setup, options)
    tree = setup.write_tree(
        state,
        input_sha256=checkpoint.sha256,
        teacher_sha256=base.sha256,
        passes=round(passes, 4),
        best_steps=[stage.best_step for stage in state.stages],
    )
    last = next((stage for stage in reversed(state.stages) if stage.steps), None)
    return FinetuneReport(
        checkpoint=checkpoint.model_copy(update=stored(tree or checkpoint)),
        **totals(state),
        validation=tuple(state.validation),
        stages=tuple(state.stages),
        best_step=last.best_step if last else 0,
        stopped_early=any(stage.stopped_early for stage in state.stages),
        processes=setup.team.size,
    )


def _train(setup: TrainingSetup, options: FinetuneOptions) -> TrainingState:
    """Load the teacher and train; the return frees the teacher's memory before the merge."""
    teacher = setup.load(load_base, setup.base).requires_grad_(False)
    setup.team.shard(teacher)
    return setup.training(load_checkpoint, teacher).run(options.stages)
