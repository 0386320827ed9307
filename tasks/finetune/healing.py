"""Healing: short training that wins back what the conversion cost."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.base import identity
from layerwright.tasks.contracts.references import CheckpointRef, ModelRef, TextRef, TreeRef
from layerwright.tasks.contracts.training import FinetuneReport
from layerwright.tasks.finetune.merging import write_merged
from layerwright.tasks.finetune.precision import compute_dtype, emulation, loaded_dtype
from layerwright.tasks.finetune.rows import Rows, training_rows
from layerwright.tasks.finetune.snapshot import Snapshots, TrainingState
from layerwright.tasks.finetune.team import Team
from layerwright.tasks.finetune.training import MetricSink, Training, silent
from layerwright.tasks.finetune.validation import Validation
from layerwright.tasks.models.loading import (
    load_base,
    load_checkpoint,
    load_tokenizer,
    stored_dtype,
)
from layerwright.tasks.recipe.finetune import FinetuneOptions
from layerwright.tasks.recipe.training import TrainingStage


def finetune_model(
    base: ModelRef,
    checkpoint: CheckpointRef,
    text: TextRef,
    held_out: TextRef | None,
    options: FinetuneOptions,
    ctx: Context,
    *,
    sink: MetricSink = silent,
    team: Team | None = None,
) -> FinetuneReport:
    """Train a converted model stage by stage with its base as teacher, and merge what was learnt.

    A plan that keeps every layer makes this the control arm: the base trained on the same rows in
    the same order; stages that have nothing to train in it are passed over. A text that is shorter
    than the stages' steps is read again in a new order; log and lineage say how many passes.

    The training state lies in ``ctx.workdir``; a later call with the same inputs goes on from it
    and comes to the same weights (on the same machine) as a run that was never interrupted.

    Args:
        held_out: the validation text, where the options name one.
        sink: gets each step's metrics as they come.
        team: the processes that train together; this one alone by default.

    Returns:
        The report with the merged checkpoint: the files of ``checkpoint`` with the trained weights
        replaced and ``layerwright.json`` extended. Of several processes the first one's counts.

    Raises:
        InputError: a text without one row, or options that cannot train anything.
        StepError: the loss became not finite; the last training state is kept.
    """
    team = team or Team()
    source = ctx.store.open_tree(checkpoint.sha256)
    base_folder = ctx.store.open_tree(base.sha256)
    tokenizer = load_tokenizer(base_folder)
    rows, held_rows = training_rows(ctx.store, text, held_out, tokenizer, options)
    validation = None
    if options.validation and held_rows:
        validation = Validation(held_rows, options.validation)
    passes = passes_over(rows, options.stages)
    ctx.log(f"finetune: {len(options.stages)} stages, {passes:.2f} passes over {len(rows)} rows")
    if line := emulation(ctx.device, options.stages):
        ctx.log(f"finetune: {line}")
    loading = {
        "device": team.loads_on(ctx.device),
        "dtype": loaded_dtype(ctx.device, options.stages),
    }
    teacher = load_base(base_folder, **loading)
    teacher.requires_grad_(False)
    team.shard(teacher)
    snapshots = Snapshots(
        ctx.workdir, identity([base, checkpoint, text, held_out, options, ctx.seed]), team
    )
    state = Training(
        load_student=partial(load_checkpoint, source, **loading),
        base=teacher,
        rows=rows,
        validation=validation,
        snapshots=snapshots,
        checkpoint_every=options.checkpoint_every,
        seed=ctx.seed,
        compute=partial(compute_dtype, ctx.device, stored_dtype(base_folder)),
        team=team,
        log=ctx.log if team.first else lambda message: None,
        sink=sink,
    ).run(options.stages)
    del teacher
    last = next((s for s in reversed(state.stages) if s.steps), None)
    report = {
        "steps": state.step,
        "tokens": state.tokens,
        "trained_parameters": max(stage.trained_parameters for stage in state.stages),
    }
    lineage = {
        "input_sha256": checkpoint.sha256,
        "teacher_sha256": base.sha256,
        "text_sha256": text.sha256,
        "validation_sha256": held_out.sha256 if held_out else None,
        # without what cannot change a weight: equal weights come to equal trees
        "options": options.model_dump(mode="json", exclude={"text", "checkpoint_every"}),
        "seed": ctx.seed,
        "passes": round(passes, 4),
        "best_steps": [stage.best_step for stage in state.stages],
        **report,
    }
    merged = write_tree(ctx, source, snapshots, state, lineage) if team.first else None
    return FinetuneReport(
        checkpoint=CheckpointRef(
            **(merged or checkpoint).model_dump(include={"uri", "sha256", "bytes"}),
            base_sha256=checkpoint.base_sha256,
            plan_sha256=checkpoint.plan_sha256,
        ),
        **report,
        points=tuple(state.points),
        validation=tuple(state.validation),
        stages=tuple(state.stages),
        best_step=last.best_step if last else 0,
        stopped_early=any(stage.stopped_early for stage in state.stages),
        processes=team.size,
        seconds=state.seconds,
    )


def passes_over(rows: Rows, stages: tuple[TrainingStage, ...]) -> float:
    """How often the rows are read, if no stage stops early."""
    return sum(stage.steps * stage.rows_per_step for stage in stages) / len(rows)


def write_tree(
    ctx: Context,
    source: Path,
    snapshots: Snapshots,
    state: TrainingState,
    lineage: dict[str, Any],
    *,
    under: str = "finetune",
) -> TreeRef:
    """A checkpoint with the weights that the stages changed, as a tree of the store."""
    values: dict[str, Callable[[], Tensor]] = {}
    for stage in range(len(state.stages)):  # the last that changed a weight has the say
        weights = snapshots.weights(stage)
        values |= {name: partial(weights.__getitem__, name) for name in weights}
    folder = ctx.folder("merged")
    write_merged(source, folder, values, lineage, under=under)
    return ctx.store.put_tree(folder)
