"""Healing: a short training that recovers quality after the conversion."""

from __future__ import annotations

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.base import identity
from layerwright.tasks.contracts.references import CheckpointRef, ModelRef, TextRef
from layerwright.tasks.contracts.training import FinetuneReport
from layerwright.tasks.finetune.rows import Rows
from layerwright.tasks.finetune.setup import TrainingSetup, trained_parameters
from layerwright.tasks.finetune.snapshot import Snapshots, TrainingState
from layerwright.tasks.finetune.team import Team
from layerwright.tasks.models.loading import load_base, load_checkpoint
from layerwright.tasks.recipe.training import FinetuneOptions, TrainingStage


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

    Args:
        held_out: the validation text, if the options name one.

    Returns:
        The report with the merged checkpoint: the files of ``checkpoint`` with the trained weights
        replaced and ``layerwright.json`` extended. Of several processes, use the first one's
        report.

    Raises:
        InputError: a text gives no row, or the options train nothing.
        StepError: the loss is not finite; the last saved training state is kept.
    """
    team = Team.of(ctx)
    setup = TrainingSetup(
        step="finetune",
        base=ctx.store.open_tree(base.sha256),
        source=ctx.store.open_tree(checkpoint.sha256),
        text=text,
        held_out=held_out,
        options=options,
        ctx=ctx,
        team=team,
    )
    rows, held_out_rows = setup.rows()
    passes = passes_over(rows, options.stages)
    ctx.log(f"finetune: {len(options.stages)} stages, {passes:.2f} passes over {len(rows)} rows")
    inputs = identity([base, checkpoint, text, held_out, options, ctx.seed])
    snapshots = Snapshots(ctx.workdir, inputs, team)
    state = _train(setup, rows, held_out_rows, snapshots, options)
    tree = setup.write_tree(
        state,
        snapshots,
        input_sha256=checkpoint.sha256,
        teacher_sha256=base.sha256,
        passes=round(passes, 4),
        best_steps=[stage.best_step for stage in state.stages],
    )
    last = next((stage for stage in reversed(state.stages) if stage.steps), None)
    return FinetuneReport(
        checkpoint=CheckpointRef(
            **(tree or checkpoint).model_dump(include={"uri", "sha256", "bytes"}),
            base_sha256=checkpoint.base_sha256,
            plan_sha256=checkpoint.plan_sha256,
        ),
        steps=state.step,
        tokens=state.tokens,
        trained_parameters=trained_parameters(state),
        points=tuple(state.points),
        validation=tuple(state.validation),
        stages=tuple(state.stages),
        best_step=last.best_step if last else 0,
        stopped_early=any(stage.stopped_early for stage in state.stages),
        processes=team.size,
        seconds=state.seconds,
    )


def _train(
    setup: TrainingSetup,
    rows: Rows,
    held_out: Rows | None,
    snapshots: Snapshots,
    options: FinetuneOptions,
) -> TrainingState:
    """Load the teacher and train; the return frees the teacher's memory before the merge."""
    teacher = setup.load(load_base, setup.base)
    teacher.requires_grad_(False)
    setup.team.shard(teacher)
    training = setup.training(load_checkpoint, rows, held_out, snapshots, teacher)
    return training.run(options.stages)


def passes_over(rows: Rows, stages: tuple[TrainingStage, ...]) -> float:
    """Number of passes over the rows, if no stage stops early."""
    return sum(stage.steps * stage.rows_per_step for stage in stages) / len(rows)
