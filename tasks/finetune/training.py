"""The training loop: LoRA adapters of a converted model, taught by its base."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW

from tasks.contracts import TrainPoint
from tasks.errors import StepError
from tasks.finetune.distillation import distillation_loss
from tasks.finetune.lora import trained
from tasks.finetune.schedule import learning_rate, row_indices
from tasks.finetune.snapshot import TrainingState, read_snapshot, write_snapshot
from tasks.progress import progress
from tasks.recipe import FinetuneOptions

LOG_EVERY_STEPS = 10


def train(
    student: nn.Module,
    teacher: nn.Module,
    rows: Tensor,
    options: FinetuneOptions,
    *,
    seed: int,
    snapshot: Path,
    run: str,
    log: Callable[[str], None],
) -> TrainingState:
    """Train the student's adapters in place for ``options.steps`` steps, or what is left of them.

    Args:
        student: with adapters attached; nothing else in it has a gradient.
        teacher: the base model; it is not changed.
        rows: (rows, row_tokens) token ids on the CPU.
        snapshot: file that is replaced every ``checkpoint_every`` steps and after the last.
        run: identity of the inputs; a snapshot of another run is not gone on from.

    Raises:
        StepError: a loss or gradient is not finite. The last snapshot stays.
    """
    parameters = trained(student)
    optimizer = AdamW(parameters.values(), weight_decay=options.weight_decay)
    state = read_snapshot(snapshot, run, parameters, optimizer)
    if state.step:
        log(f"finetune goes on from step {state.step} of {options.steps}")
    student.eval()  # no dropout: nothing in a step is random, which makes resuming exact
    teacher.eval()
    with progress() as bar:
        job = bar.add_task("finetune", total=options.steps, completed=state.step)
        for step in range(state.step, options.steps):
            started = time.perf_counter()
            chosen = row_indices(
                step, rows=len(rows), rows_per_step=options.rows_per_step, seed=seed
            )
            rate = learning_rate(
                step,
                peak=options.learning_rate,
                warmup_steps=options.warmup_steps,
                steps=options.steps,
            )
            for group in optimizer.param_groups:
                group["lr"] = rate
            losses = accumulate_gradients(student, teacher, rows[chosen], options)
            norm = float(clip_grad_norm_(parameters.values(), options.max_grad_norm))
            _require_finite(step + 1, [*losses, norm])
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

            spent = time.perf_counter() - started
            state.step, state.seconds = step + 1, state.seconds + spent
            state.tokens += len(chosen) * rows.shape[1]
            loss, nll, kl = losses
            state.points.append(
                TrainPoint(
                    step=state.step,
                    loss=loss,
                    next_token_nats=nll,
                    kl_nats=kl,
                    tokens=state.tokens,
                    learning_rate=rate,
                )
            )
            if state.step % options.checkpoint_every == 0 or state.step == options.steps:
                write_snapshot(snapshot, run, state, parameters, optimizer)
            speed = len(chosen) * rows.shape[1] / spent
            note = f"loss {loss:.3f} (kl {kl:.3f}), {speed:.0f} tokens/s"
            bar.update(job, advance=1, note=note)
            if bar.disable and (state.step % LOG_EVERY_STEPS == 0 or state.step == options.steps):
                log(f"finetune step {state.step} of {options.steps}: {note}")
    return state


def accumulate_gradients(
    student: nn.Module, teacher: nn.Module, rows: Tensor, options: FinetuneOptions
) -> tuple[float, float, float]:
    """Add the gradient of the mean loss over ``rows``, row by row, so that memory is one row's.

    Args:
        rows: (R, T) token ids. Position t predicts token t + 1; T - 1 positions count.

    Returns:
        Means of the loss, of the next-token term and of the KL term, in nats.
    """
    head = student.get_output_embeddings().weight.detach()
    sums = [0.0, 0.0, 0.0]
    for row in rows.split(1):
        ids = row.to(head.device)
        with torch.no_grad():
            target_hidden = teacher.model(input_ids=ids, use_cache=False).last_hidden_state
        hidden = student.model(input_ids=ids, use_cache=False).last_hidden_state  # [1, T, D]
        result = distillation_loss(
            hidden[0, :-1],
            target_hidden[0, :-1],
            head,
            ids[0, 1:],
            next_token_weight=options.next_token_weight,
            kl_weight=options.kl_weight,
        )
        (result.loss / len(rows)).backward()
        for index, value in enumerate((result.loss, result.next_token_nats, result.kl_nats)):
            sums[index] += float(value.detach()) / len(rows)
    return sums[0], sums[1], sums[2]


def _require_finite(step: int, values: list[float]) -> None:
    if not all(math.isfinite(value) for value in values):
        raise StepError(
            f"finetune step {step}: loss {values[0]}, next token {values[1]}, KL {values[2]}, "
            f"gradient norm {values[3]}: not finite; lower finetune.learning_rate"
        )
