"""The training loop: stage after stage, each resumed exactly where it was killed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW

from layerwright.tasks.components import build
from layerwright.tasks.contracts.training import StageReport, TrainPoint
from layerwright.tasks.errors import InputError, StepError
from layerwright.tasks.finetune.adapters import attach, give, merge, split_by_parts, trained
from layerwright.tasks.finetune.losses import Means, StageLoss
from layerwright.tasks.finetune.objectives.base import LayerObjective, Objective
from layerwright.tasks.finetune.rows import Rows
from layerwright.tasks.finetune.schedule import row_indices, share_of_peak, windows_off
from layerwright.tasks.finetune.snapshot import Snapshots, TrainingState
from layerwright.tasks.finetune.team import Team, whole
from layerwright.tasks.finetune.validation import Validation
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.progress import progress
from layerwright.tasks.recipe.finetune import HealingStage

LOG_EVERY_STEPS = 10
# a step, and what was measured at it: where live metrics go
MetricSink = Callable[[int, Mapping[str, float]], None]


def silent(step: int, metrics: Mapping[str, float]) -> None:
    """The default sink."""


@dataclass(frozen=True)
class Training:
    """Everything that stays the same over the stages of a training.

    Attributes:
        load_student: makes the model that the first stage starts from, on the training's device.
        base: the teacher, frozen; None where no objective needs it.
        rows: what is trained on, in an order that follows from ``seed``.
        validation: held-out rows and when to read them; None for none.
        snapshots: where the state is kept, every ``checkpoint_every`` steps.
        compute: autocast's dtype for a stage, or None.
        name: of the step, for messages.
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
    sink: MetricSink = silent
    name: str = "finetune"

    def run(self, stages: Sequence[HealingStage]) -> TrainingState:
        """Train the stages that are not done yet.

        Each starts from the weights that the one before it handed on, with adapters and optimiser
        of its own, and hands on its best state where there is a validation, else its last.

        Returns:
            The state after the last stage; ``snapshots.weights`` has what the stages changed.

        Raises:
            InputError: a stage asks for what the model has not.
            StepError: a loss or gradient is not finite. The last snapshot stays.
        """
        state = self.snapshots.finished()
        for index in range(len(state.stages), len(stages)):
            state = self._stage(index, stages[index], state)
        return state

    def _stage(self, index: int, stage: HealingStage, finished: TrainingState) -> TrainingState:
        where = f"{self.name}.stages.{index}" if self.name == "finetune" else self.name
        if stage.rows_per_step % self.team.size:
            raise InputError(
                f"{stage.rows_per_step} rows a step cannot be shared by {self.team.size} processes",
                where=f"{where}.rows_per_step",
                expected=f"a multiple of {self.team.size}",
            )
        objectives = [build(Objective, o, where=f"{where}.objectives") for o in stage.objectives]
        student = self.load_student()
        for earlier in range(index):
            give(student, self.snapshots.weights(earlier))
        converted = self._converted(student)
        local = all(isinstance(o, LayerObjective) for o in objectives)
        parts = stage.parts if self._is_converted(student) else ()  # the control arm has none
        parameters = attach(
            student,
            stage.adapter,
            seed=self.seed + index,
            parts=parts,
            mixers_of=converted if local else None,
            where=where,
        )
        if not parameters:
            self.log(f"{self.name} stage {index + 1} has nothing to train in this model")
            return self._finish(stage, objectives, finished, finished, {}, 0)
        # no gradient anywhere: steps that would cost their time and change nothing
        if all(o.needs_base for o in objectives) and self._is_the_base(index, student):
            self.log(f"{self.name} stage {index + 1} has nothing to learn: this model is the base")
            return self._finish(stage, objectives, finished, finished, {}, 0)
        count = sum(p.numel() for p in parameters.values())
        head = student.get_output_embeddings().weight.detach().clone()
        if stage.gradient_checkpointing:
            student.gradient_checkpointing_enable({"use_reentrant": False})
        # no dropout anywhere: nothing in a step is random, which makes resuming exact
        student.train(stage.gradient_checkpointing)
        self.team.shard(student)
        by_rate = split_by_parts(trained(student), parts)  # sharding made new ones
        parameters = {name: p for group in by_rate for name, p in group.items()}
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
                for group, rate in zip(by_rate, rates, strict=True)
                if group
            ],
            weight_decay=stage.weight_decay,
        )
        state = self.snapshots.read(finished, parameters, optimizer)
        if state.step > finished.step:
            done = state.step - finished.step
            which = f"stage {index + 1}, " if index else ""
            self.log(f"{self.name} goes on from {which}step {done} of {stage.steps}")
        self._steps(index, stage, loss, parameters, optimizer, state, finished)
        chosen = state.best if state.best else {n: whole(p).cpu() for n, p in parameters.items()}
        weights = self._merged(index, stage, student, parts, chosen, converted if local else None)
        return self._finish(stage, objectives, finished, state, weights, count)

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
                        f"better for {self.validation.options.patience} validations"
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
                    which = f"stage {index + 1}, " if index else ""
                    self.log(f"{self.name} {which}step {step + 1} of {stage.steps}: {note}")

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
        norm = float(whole(clip_grad_norm_(parameters.values(), stage.max_grad_norm)))
        self._require_finite(state.step + 1, means, norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        spent = time.perf_counter() - started
        state.step += 1
        state.seconds += spent
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
        return f"loss {means.loss:.3f} ({values}), {rows.tokens / spent:.0f} tokens/s"

    def _validate(
        self,
        index: int,
        loss: StageLoss,
        parameters: dict[str, nn.Parameter],
        state: TrainingState,
    ) -> None:
        assert self.validation is not None
        point, better = self.validation.measure(index, loss, state)
        state.validation.append(point)
        if better:
            state.best = {name: whole(p).cpu().clone() for name, p in parameters.items()}
        found = {"loss": point.loss, "nll": point.nll, "kl": point.kl}
        self.sink(state.step, {f"validation.{k}": v for k, v in found.items() if v is not None})

    def _merged(
        self,
        index: int,
        stage: HealingStage,
        student: HybridForCausalLM,
        parts: Sequence[str],
        chosen: dict[str, Tensor],
        mixers_of: Sequence[int] | None,
    ) -> dict[str, Tensor]:
        """The plain weights that a stage's chosen state comes to."""
        if self.team.size > 1:  # on whole weights, which the sharded student has not
            if not self.team.first:
                return {}
            student = self.load_student()
            for earlier in range(index):
                give(student, self.snapshots.weights(earlier))
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
        """Layers that mix tokens otherwise than the base's."""
        if self.base is None:
            return []
        pairs = zip(student.config.layer_specs, self.base.config.layer_specs, strict=True)
        return [
            layer
            for layer, (ours, theirs) in enumerate(pairs)
            if ours["mixer"] != theirs["mixer"] and ours["mixer"]["kind"] != "none"
        ]

    def _is_converted(self, student: HybridForCausalLM) -> bool:
        base = self.base.config.layer_specs if self.base else student.config.layer_specs
        return student.config.layer_specs != base

    def _is_the_base(self, index: int, student: HybridForCausalLM) -> bool:
        """Not converted, and not changed by the stages before this one."""
        return not self._is_converted(student) and not any(
            self.snapshots.weights(earlier) for earlier in range(index)
        )

    def _require_finite(self, step: int, means: Means, norm: float) -> None:
        if not all(map(math.isfinite, [means.loss, *means.values.values(), norm])):
            told = ", ".join(f"{name} {value}" for name, value in means.values.items())
            raise StepError(
                f"{self.name} step {step}: loss {means.loss}, {told}, gradient norm {norm}: not "
                "finite; lower its learning_rate"
            )
