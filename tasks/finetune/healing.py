"""Healing: a short LoRA training that wins back what the conversion cost."""

from __future__ import annotations

import torch

from tasks.context import Context
from tasks.contracts import CheckpointRef, FinetuneReport, ModelRef, TextRef, identity
from tasks.errors import InputError
from tasks.finetune import lora
from tasks.finetune.merging import write_merged
from tasks.finetune.training import train
from tasks.measure.batches import all_rows
from tasks.measure.models import load_base, load_checkpoint, load_tokenizer
from tasks.recipe import FinetuneOptions

SNAPSHOT = "training.safetensors"


def finetune_model(
    base: ModelRef,
    checkpoint: CheckpointRef,
    text: TextRef,
    options: FinetuneOptions,
    ctx: Context,
) -> FinetuneReport:
    """Train LoRA adapters on a converted model with its base as teacher, and merge them back.

    loss = next_token_weight * CE + kl_weight * KL(base || student), means per token. A plan that
    keeps every layer makes this the control arm: the base trained on the same rows in the same
    order. A text shorter than ``steps * rows_per_step`` rows is read again in a new order; the log
    and the lineage say how many passes were made.

    The training state lies in ``ctx.workdir``; a later call with the same inputs goes on from it
    and comes to the same weights (on the same machine) as a run that was never interrupted.

    Returns:
        The report with the merged checkpoint: the files of ``checkpoint`` with the trained weights
        replaced and ``layerwright.json`` extended.

    Raises:
        InputError: the text is shorter than one row, or options that cannot train anything.
        StepError: the loss became not finite; the last training state is kept.
    """
    _check(options)
    device = torch.device(ctx.device)
    # on the CPU fp32 is the faster one, whatever the weights are stored in
    dtype = torch.float32 if device.type == "cpu" else None
    source = ctx.store.open_tree(checkpoint.sha256)
    base_folder = ctx.store.open_tree(base.sha256)
    rows = all_rows(
        ctx.store.open_tree(text.sha256),
        load_tokenizer(base_folder),
        options.row_tokens,
        what=options.text,
    )
    passes = options.steps * options.rows_per_step / len(rows)
    ctx.log(
        f"finetune: {options.steps} steps of {options.rows_per_step} x {options.row_tokens} "
        f"tokens, {passes:.2f} passes over {len(rows)} rows"
    )
    teacher = load_base(base_folder, device=ctx.device, dtype=dtype)
    teacher.requires_grad_(False)
    student = load_checkpoint(source, device=ctx.device, dtype=dtype)
    lora.attach(
        student,
        rank=options.rank,
        alpha=options.alpha,
        targets=options.targets,
        seed=ctx.seed,
    )
    state = train(
        student,
        teacher,
        rows,
        options,
        seed=ctx.seed,
        snapshot=ctx.workdir / SNAPSHOT,
        run=identity([base, checkpoint, text, options, ctx.seed]),
        log=ctx.log,
    )
    del teacher
    trained_parameters = sum(p.numel() for p in lora.trained(student).values())
    folder = ctx.folder("merged")
    lineage = {
        "input_sha256": checkpoint.sha256,
        "teacher_sha256": base.sha256,
        "text_sha256": text.sha256,
        # without what cannot change a weight: equal weights come to equal trees
        "options": options.model_dump(mode="json", exclude={"text", "checkpoint_every"}),
        "seed": ctx.seed,
        "steps": state.step,
        "tokens": state.tokens,
        "passes": round(passes, 4),
        "trained_parameters": trained_parameters,
    }
    write_merged(source, folder, lora.weight_changes(student), lineage)
    tree = ctx.store.put_tree(folder)
    return FinetuneReport(
        checkpoint=CheckpointRef(
            **tree.model_dump(),
            base_sha256=checkpoint.base_sha256,
            plan_sha256=checkpoint.plan_sha256,
        ),
        steps=state.step,
        tokens=state.tokens,
        trained_parameters=trained_parameters,
        points=tuple(state.points),
        seconds=state.seconds,
    )


def _check(options: FinetuneOptions) -> None:
    if options.next_token_weight == 0 and options.kl_weight == 0:
        raise InputError(
            "both loss weights are 0: nothing would be learnt",
            where="finetune.kl_weight",
            expected="next_token_weight or kl_weight above 0",
        )
    if options.warmup_steps >= options.steps:
        raise InputError(
            f"warm-up takes all {options.steps} steps",
            where="finetune.warmup_steps",
            expected=f"fewer than {options.steps}",
        )
