"""The training loop: it trains stage by stage, and resumes a killed stage exactly."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW

from layerwright.tasks.context import MetricSink, no_metrics
from layerwright.tasks.contracts.training import StageReport, TrainPoint, ValidationPoint
from layerwright.tasks.errors import InputError, StepError
from layerwright.tasks.finetune.adapters import (
    apply_weights,
    attach,
    merge,
    split_by_parts,
    trainable,
)
from layerwright.tasks.finetune.losses import StageLoss
from layerwright.tasks.finetune.objectives.base import LayerObjective
from layerwright.tasks.finetune.rows import Rows
from layerwright.tasks.finetune.schedule import row_indices, share_of_peak, windows_off
from layerwright.tasks.finetune.snapshot import Snapshots, TrainingState
from layerwright.tasks.finetune.team import Team, full_tensor
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.progress import progress
from layerwright.tasks.recipe.training import HealingStage, ValidationOptions

LOG_EVERY_STEPS = 10


@dataclass(frozen=True)
class Training:
    """A training; its fields are the same for all stages."""

    load_student: Callable[[], HybridForCausalLM]  # the first stage starts from it
    base: HybridForCausalLM | None  # the teacher, frozen; None only if no objective needs it
    rows: Rows
    snapshots: Snapshots
    validation: tuple[Rows, ValidationOptions] | None = None  # None: none
    checkpoint_every: int = 10  # steps between two snapshots
    seed: int = 0  # of adapters, row order and window dropout
    compute: Callable[[HealingStage], torch.dtype | None] = lambda stage: None  # autocast dtype
    team: Team = field(default_factory=Team)
    log: Callable[[str], None] = lambda message: None
    sink: MetricSink = no_metrics  # receives each step's metrics
    name: str = "finetune"  # of the step, for messages

    def run(self, stages: Sequence[HealingStage]) -> TrainingState:
        """Train the stages that are not finished yet.

        A stage starts from the weights of the stage before it, with a new adapter and optimizer. It
        passes on its best weights if there is a validation, else its last. ``snapshots.weights``
        has the changed weights. InputError if the options of a stage do not fit the model or the
        number of processes, StepError if a loss or gradient is not finite. The last snapshot is
        kept.
        """
        state = self.snapshots.finished()
        for index in range(len(state.stages), len(stages)):
            state = self._stage(index, stages[index], state)
        return state

    def _stage(self, index: int, stage: HealingStage, finished: TrainingState) -> TrainingState:
        where = f"{self.name}.stages.{index}" if self.name == "finetune" else self.name
        if stage.rows_per_step % self.team.size:
            raise InputError(
                f"{self.team.size} processes cannot share {stage.rows_per_step} rows per step",
                where=f"{where}.rows_per_step",
                expected=f"a multiple of {self.team.size}",
            )
        objectives, student = stage.objectives, self._student(index)
        specs = student.config.layer_specs
        is_converted = self.base is not None and specs != self.base.config.layer_specs
        converted = self._converted(student)
        parts = stage.parts if is_converted else ()  # the control arm has no parts
        adapt = partial(
            attach,
            adapter=stage.adapter,
            seed=self.seed + index,
            parts=parts,
            mixers_of=converted if all(isinstance(o, LayerObjective) for o in objectives) else None,
            where=where,
        )
        parameters, skipped = adapt(student), ""
        if not parameters:
            skipped = "it has nothing to train here"
        # objectives that compare with the base have no gradient at the base
        elif not (
            is_converted
            or any(self.snapshots.weights(earlier) for earlier in range(index))
            or not all(o.needs_base for o in objectives)
        ):
            skipped = "the model still equals the base"
        if skipped:
            self.log(f"{self.name} stage {index + 1} skipped: {skipped}")
            return self._finish(stage, finished, finished, {}, 0)
        count = sum(p.numel() for p in parameters.values())
        head = student.get_output_embeddings().weight.detach().clone()
        if stage.gradient_checkpointing:
            student.gradient_checkpointing_enable({"use_reentrant": False})
        # training mode only where checkpointing needs it; there is no dropout, so a step is not
        # random and resuming is exact
        student.train(stage.gradient_checkpointing)
        self.team.shard(student)
        groups = split_by_parts(trainable(student), parts)  # sharding created new parameters
        parameters = {name: p for group in groups for name, p in group.items()}
        loss = StageLoss(
            student,
            self.base,
            objectives,
            head=head.to(student.device),
            converted=converted,
            compute=self.compute(stage),
            team=self.team,
        )
        rates = (stage.learning_rate, stage.parts_learning_rate or stage.learning_rate)
        rated = [(group, rate) for group, rate in zip(groups, rates, strict=True) if group]
        optimizer = AdamW(
            [{"params": list(group.values()), "peak": rate} for group, rate in rated],
            weight_decay=stage.weight_decay,
        )
        state = self.snapshots.read(finished, parameters, optimizer)
        if state.step > finished.step:
            done = state.step - finished.step
            prefix = f"stage {index + 1}, " if index else ""
            self.log(f"{self.name} resumes from {prefix}step {done} of {stage.steps}")
        _Stage(self, index, stage, loss, parameters, optimizer, finished, state).run()
        chosen = state.best or {name: full_tensor(p).cpu() for name, p in parameters.items()}
        weights: dict[str, Tensor] = {}
        if self.team.first:
            if self.team.size > 1:  # the student is sharded, but merging needs full weights
                student = self._student(index)
                adapt(student)
            for name, parameter in student.named_parameters():
                if name in chosen:
                    parameter.data = chosen[name].to(parameter.device)
            weights = merge(student)
        return self._finish(stage, finished, state, weights, count)

    def _student(self, index: int) -> HybridForCausalLM:
        """Load the student with the weights of the stages before ``index``."""
        student = self.load_student()
        for earlier in range(index):
            apply_weights(student, self.snapshots.weights(earlier))
        return student

    def _finish(
        self,
        stage: HealingStage,
        finished: TrainingState,
        state: TrainingState,
        weights: dict[str, Tensor],
        trained_parameters: int,
    ) -> TrainingState:
        points = state.points_of(len(finished.stages))
        steps = state.step - finished.step
        state.stages.append(
            StageReport(
                units={o.name: o.unit for o in stage.objectives},
                weights={o.name: o.weight for o in stage.objectives},
                adapter=stage.adapter.kind,
                steps=steps,
                tokens=state.tokens - finished.tokens,
                trained_parameters=trained_parameters,
                best_step=min(points, key=lambda p: p.loss).step if points else state.step,
                stopped_early=0 < steps < stage.steps,
            )
        )
        state.best = {}
        self.snapshots.write_stage(state, weights)
        return state

    def _converted(self, student: HybridForCausalLM) -> list[int]:
        """Layers that have a mixer, but not the base's."""
        if self.base is None:
            return []
        pairs = zip(student.config.layer_specs, self.base.config.layer_specs, strict=True)
        return [
            layer
            for layer, (spec, base) in enumerate(pairs)
            if spec["mixer"] != base["mixer"] and spec["mixer"]["kind"] != "none"
        ]


@dataclass(frozen=True)
class _Stage:
    """The steps and validations of a stage."""

    training: Training
    index: int
    options: HealingStage
    loss: StageLoss
    parameters: dict[str, nn.Parameter]
    optimizer: AdamW
    finished: TrainingState
    state: TrainingState

    def run(self) -> None:
        training, name, steps = self.training, self.training.name, self.options.steps
        self._validate()
        with progress() as bar:
            first = self.state.step - self.finished.step
            job = bar.add_task(name, total=steps, completed=first)
            for step in range(first, steps):
                if self._is_over():
                    break
                note = self._step(step)
                self._validate()
                last = step + 1 == steps
                if (step + 1) % training.checkpoint_every == 0 and not last:
                    training.snapshots.write(self.state, self.parameters, self.optimizer)
                bar.update(job, advance=1, note=note)
                if bar.disable and ((step + 1) % LOG_EVERY_STEPS == 0 or last):
                    prefix = f"stage {self.index + 1}, " if self.index else ""
                    training.log(f"{name} {prefix}step {step + 1} of {steps}: {note}")

    def _step(self, step: int) -> str:
        """Take a training step; return its progress note."""
        training, stage, state = self.training, self.options, self.state
        started = time.perf_counter()
        order = {"first": state.rows_read, "count": stage.rows_per_step, "seed": training.seed}
        rows = training.rows[row_indices(rows=len(training.rows), **order)]
        off = None
        if stage.window_dropout:
            off = windows_off(stage.window_dropout, step, steps=stage.steps, **order)
        share = share_of_peak(
            step, warmup_steps=stage.warmup_steps, steps=stage.steps, schedule=stage.schedule
        )
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * share
        means = self.loss.accumulate(rows, stage.rows_at_once, off)
        clipped = clip_grad_norm_(self.parameters.values(), stage.max_grad_norm)
        norm = float(full_tensor(clipped))
        if not all(map(math.isfinite, [means.loss, *means.values.values(), norm])):
            values = ", ".join(f"{name} {value}" for name, value in means.values.items())
            raise StepError(
                f"{training.name} step {state.step + 1}: loss {means.loss}, {values}, gradient "
                f"norm {norm}: not finite; lower the stage's learning_rate"
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        seconds = time.perf_counter() - started
        state.step += 1
        state.seconds += seconds
        state.rows_read += len(rows)
        state.tokens += rows.tokens
        point = TrainPoint(
            stage=self.index,
            step=state.step,
            loss=means.loss,
            values=means.values,
            tokens=state.tokens,
            learning_rate=stage.learning_rate * share,
        )
        state.points.append(point)
        shown = point.model_dump(include={"loss", "learning_rate", "tokens"})
        training.sink(state.step, means.values | shown)
        values = ", ".join(f"{name} {value:.3f}" for name, value in means.values.items())
        return f"loss {means.loss:.3f} ({values}), {rows.tokens / seconds:.0f} tokens/s"

    def _validate(self) -> None:
        """Measure before the stage, every ``every_tokens`` tokens and after it; keep the best."""
        if self.training.validation is None:
            return
        rows, options = self.training.validation
        state, points = self.state, self.state.points_of(self.index)
        if points:
            last = state.step - self.finished.step == self.options.steps
            due = last or state.tokens - points[-1].tokens >= options.every_tokens
            if points[-1].step == state.step or not due:
                return
        means = self.loss.measure(rows)
        measured = {"loss": means.loss, "nll": means.nll, "kl": means.kl}
        totals = state.model_dump(include={"step", "tokens", "seconds"})
        point = ValidationPoint(stage=self.index, **totals, **measured)
        state.validation.append(point)
        if not points or point.loss < min(earlier.loss for earlier in points):
            named = self.parameters.items()
            state.best = {name: full_tensor(p).cpu().clone() for name, p in named}
        found = {f"validation.{name}": v for name, v in measured.items() if v is not None}
        self.training.sink(state.step, found)

    def _is_over(self) -> bool:
        """Whether the last ``patience`` measurements gave no new best; then log it."""
        patience = self.training.validation[1].patience if self.training.validation else None
        losses = [point.loss for point in self.state.points_of(self.index)]
        if patience is None or len(losses) - 1 - losses.index(min(losses)) < patience:
            return False
        self.training.log(
            f"{self.training.name} stage {self.index + 1} stops at step "
            f"{self.state.step - self.finished.step} of {self.options.steps}: no "
            f"improvement in {patience} validations"
        )
        return True
