"""The training loop: it trains stage by stage, and resumes a killed stage exactly."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW

from layerwright.tasks.context import MetricSink, no_metrics
from layerwright.tasks.contracts.training import StageReport, TrainPoint
from layerwright.tasks.errors import InputError, StepError
from layerwright.tasks.finetune.adapters import (
    apply_weights,
    attach,
    merge,
    split_by_parts,
    trainable,
)
from layerwright.tasks.finetune.losses import Means, StageLoss
from layerwright.tasks.finetune.objectives.base import LayerObjective, Objective
from layerwright.tasks.finetune.rows import Rows
from layerwright.tasks.finetune.schedule import row_indices, share_of_peak, windows_off
from layerwright.tasks.finetune.snapshot import Snapshots, TrainingState
from layerwright.tasks.finetune.team import Team, full_tensor
from layerwright.tasks.finetune.validation import Validation
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.progress import progress
from layerwright.tasks.recipe.training import HealingStage

LOG_EVERY_STEPS = 10


@dataclass(frozen=True)
class Training:
    """A training; its fields are the same for all stages.

    Attributes:
        load_student: loads the model that the first stage starts from, on the training's device.
        base: the teacher, frozen; None only if no objective needs it.
        rows: training rows; ``seed`` determines their order.
        snapshots: saves the state every ``checkpoint_every`` steps.
        validation: held-out rows, and when to measure them; None: no validation.
        checkpoint_every: steps between two snapshots.
        seed: seed of adapters, row order and window dropout.
        compute: gives the autocast dtype of a stage, or None.
        team: the processes that train together.
        log: receives log lines.
        sink: receives each step's metrics.
        name: name of the step, for messages.
    """

    load_student: Callable[[], HybridForCausalLM]
    base: HybridForCausalLM | None
    rows: Rows
    snapshots: Snapshots
    validation: Validation | None = None
    checkpoint_every: int = 10
    seed: int = 0
    compute: Callable[[HealingStage], torch.dtype | None] = lambda stage: None
    team: Team = field(default_factory=Team)
    log: Callable[[str], None] = lambda message: None
    sink: MetricSink = no_metrics
    name: str = "finetune"

    def run(self, stages: Sequence[HealingStage]) -> TrainingState:
        """Train the stages that are not finished yet.

        A stage starts from the weights of the stage before it, with a new adapter and optimizer. It
        passes on its best weights if there is a validation, else its last.

        Returns:
            The state after the last stage; ``snapshots.weights`` has the changed weights.

        Raises:
            InputError: the options of a stage do not fit the model or the number of processes.
            StepError: a loss or gradient is not finite. The last snapshot is kept.
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
        objectives = stage.objectives
        student = self._student(index)
        converted = self._converted(student)
        layer_local = all(isinstance(o, LayerObjective) for o in objectives)
        mixers_of = converted if layer_local else None
        parts = stage.parts if self._is_converted(student) else ()  # the control arm has no parts
        parameters = attach(
            student,
            stage.adapter,
            seed=self.seed + index,
            parts=parts,
            mixers_of=mixers_of,
            where=where,
        )
        if not parameters:
            self.log(f"{self.name} stage {index + 1} skipped: it has nothing to train here")
            return self._finish(stage, objectives, finished, finished, {}, 0)
        # objectives that compare with the base have no gradient at the base
        if all(o.needs_base for o in objectives) and self._is_the_base(index, student):
            self.log(f"{self.name} stage {index + 1} skipped: the model still equals the base")
            return self._finish(stage, objectives, finished, finished, {}, 0)
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
        optimizer = AdamW(
            [
                {"params": list(group.values()), "peak": rate}
                for group, rate in zip(groups, rates, strict=True)
                if group
            ],
            weight_decay=stage.weight_decay,
        )
        state = self.snapshots.read(finished, parameters, optimizer)
        if state.step > finished.step:
            done = state.step - finished.step
            prefix = f"stage {index + 1}, " if index else ""
            self.log(f"{self.name} resumes from {prefix}step {done} of {stage.steps}")
        self._steps(index, stage, loss, parameters, optimizer, state, finished)
        chosen = state.best or {name: full_tensor(p).cpu() for name, p in parameters.items()}
        weights = self._merged(index, stage, student, parts, chosen, mixers_of)
        return self._finish(stage, objectives, finished, state, weights, count)

    def _student(self, index: int) -> HybridForCausalLM:
        """Load the student with the weights of the stages before ``index``."""
        student = self.load_student()
        for earlier in range(index):
            apply_weights(student, self.snapshots.weights(earlier))
        return student

    def _steps(
        self,
        index: int,
        stage: HealingStage,
        loss: StageLoss,
        parameters: dict[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        state: TrainingState,
        finished: TrainingState,
    ) -> None:
        if self.validation and self.validation.due(index, stage.steps, state, finished):
            self._validate(index, loss, parameters, state)
        with progress() as bar:
            first = state.step - finished.step
            job = bar.add_task(self.name, total=stage.steps, completed=first)
            for step in range(first, stage.steps):
                if self.validation and self.validation.is_over(index, state):
                    self.log(
                        f"{self.name} stage {index + 1} stops at step {step} of {stage.steps}: no "
                        f"improvement in {self.validation.options.patience} validations"
                    )
                    break
                note = self._step(index, step, stage, loss, parameters, optimizer, state)
                if self.validation and self.validation.due(index, stage.steps, state, finished):
                    self._validate(index, loss, parameters, state)
                last = step + 1 == stage.steps
                if (step + 1) % self.checkpoint_every == 0 and not last:
                    self.snapshots.write(state, parameters, optimizer)
                bar.update(job, advance=1, note=note)
                if bar.disable and ((step + 1) % LOG_EVERY_STEPS == 0 or last):
                    prefix = f"stage {index + 1}, " if index else ""
                    self.log(f"{self.name} {prefix}step {step + 1} of {stage.steps}: {note}")

    def _step(
        self,
        index: int,
        step: int,
        stage: HealingStage,
        loss: StageLoss,
        parameters: dict[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        state: TrainingState,
    ) -> str:
        """Take a training step; return its progress note."""
        started = time.perf_counter()
        order = {"first": state.rows_read, "count": stage.rows_per_step, "seed": self.seed}
        rows = self.rows[row_indices(rows=len(self.rows), **order)]
        off = None
        if stage.window_dropout:
            off = windows_off(stage.window_dropout, step, steps=stage.steps, **order)
        share = share_of_peak(
            step, warmup_steps=stage.warmup_steps, steps=stage.steps, schedule=stage.schedule
        )
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * share
        means = loss.accumulate(rows, stage.rows_at_once, off)
        norm = float(full_tensor(clip_grad_norm_(parameters.values(), stage.max_grad_norm)))
        self._require_finite(state.step + 1, means, norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds = time.perf_counter() - started
        state.step += 1
        state.seconds += seconds
        state.rows_read += len(rows)
        state.tokens += rows.tokens
        point = TrainPoint(
            stage=index,
            step=state.step,
            loss=means.loss,
            values=means.values,
            tokens=state.tokens,
            learning_rate=stage.learning_rate * share,
        )
        state.points.append(point)
        self.sink(
            state.step,
            {
                "loss": means.loss,
                **means.values,
                "learning_rate": point.learning_rate,
                "tokens": state.tokens,
            },
        )
        values = ", ".join(f"{name} {value:.3f}" for name, value in means.values.items())
        return f"loss {means.loss:.3f} ({values}), {rows.tokens / seconds:.0f} tokens/s"

    def _validate(
        self,
        index: int,
        loss: StageLoss,
        parameters: dict[str, nn.Parameter],
        state: TrainingState,
    ) -> None:
        assert self.validation is not None
        point, is_best = self.validation.measure(index, loss, state)
        state.validation.append(point)
        if is_best:
            state.best = {name: full_tensor(p).cpu().clone() for name, p in parameters.items()}
        metrics = {"loss": point.loss, "nll": point.nll, "kl": point.kl}
        self.sink(state.step, {f"validation.{k}": v for k, v in metrics.items() if v is not None})

    def _merged(
        self,
        index: int,
        stage: HealingStage,
        student: HybridForCausalLM,
        parts: Sequence[str],
        chosen: dict[str, Tensor],
        mixers_of: Sequence[int] | None,
    ) -> dict[str, Tensor]:
        """Merge the chosen parameters of a stage; return the changed weights without adapters."""
        if self.team.size > 1:  # the student is sharded, but merging needs full weights
            if not self.team.first:
                return {}
            student = self._student(index)
            attach(student, stage.adapter, seed=self.seed + index, parts=parts, mixers_of=mixers_of)
        for name, parameter in student.named_parameters():
            if name in chosen:
                parameter.data = chosen[name].to(parameter.device)
        return merge(student)

    def _finish(
        self,
        stage: HealingStage,
        objectives: Sequence[Objective],
        finished: TrainingState,
        state: TrainingState,
        weights: dict[str, Tensor],
        trained_parameters: int,
    ) -> TrainingState:
        index, steps = len(finished.stages), state.step - finished.step
        best = self.validation.best(index, state) if self.validation else None
        state.stages.append(
            StageReport(
                units={o.name: o.unit for o in objectives},
                weights={o.name: o.weight for o in objectives},
                adapter=stage.adapter.kind,
                steps=steps,
                tokens=state.tokens - finished.tokens,
                trained_parameters=trained_parameters,
                best_step=best.step if best else state.step,
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
        student_specs, base_specs = student.config.layer_specs, self.base.config.layer_specs
        assert student_specs is not None
        assert base_specs is not None
        mixers = [
            (spec["mixer"], base_spec["mixer"])
            for spec, base_spec in zip(student_specs, base_specs, strict=True)
        ]
        return [
            layer
            for layer, (mixer, base_mixer) in enumerate(mixers)
            if mixer != base_mixer and mixer["kind"] != "none"
        ]

    def _is_converted(self, student: HybridForCausalLM) -> bool:
        base = self.base.config.layer_specs if self.base else student.config.layer_specs
        return student.config.layer_specs != base

    def _is_the_base(self, index: int, student: HybridForCausalLM) -> bool:
        """Whether no layer is converted and the stages before this one changed no weight."""
        return not self._is_converted(student) and not any(
            self.snapshots.weights(earlier) for earlier in range(index)
        )

    def _require_finite(self, step: int, means: Means, norm: float) -> None:
        if not all(map(math.isfinite, [means.loss, *means.values.values(), norm])):
            values = ", ".join(f"{name} {value}" for name, value in means.values.items())
            raise StepError(
                f"{self.name} step {step}: loss {means.loss}, {values}, gradient norm {norm}: not "
                "finite; lower the stage's learning_rate"
            )
