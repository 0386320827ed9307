"""Validation on held-out rows: when to measure, which state is best, when to stop early."""

from __future__ import annotations

from dataclasses import dataclass

from layerwright.tasks.contracts.training import ValidationPoint
from layerwright.tasks.finetune.losses import StageLoss
from layerwright.tasks.finetune.rows import Rows
from layerwright.tasks.finetune.snapshot import TrainingState
from layerwright.tasks.recipe.training import ValidationOptions


@dataclass(frozen=True)
class Validation:
    """The held-out rows and the recipe's options; the results are in the training state."""

    rows: Rows
    options: ValidationOptions

    def due(self, stage: int, steps: int, state: TrainingState, finished: TrainingState) -> bool:
        """Whether to measure now: before a stage, every ``every_tokens`` tokens, and after it."""
        points = self._points(stage, state)
        if not points:
            return True
        if points[-1].step == state.step:
            return False
        last = state.step - finished.step == steps
        return last or state.tokens - points[-1].tokens >= self.options.every_tokens

    def measure(
        self, stage: int, loss: StageLoss, state: TrainingState
    ) -> tuple[ValidationPoint, bool]:
        """Measure the held-out rows; return the point, and whether it is the stage's best."""
        means = loss.measure(self.rows)
        assert means.nll is not None
        point = ValidationPoint(
            stage=stage,
            step=state.step,
            tokens=state.tokens,
            seconds=state.seconds,
            loss=means.loss,
            nll=means.nll,
            kl=means.kl,
        )
        best = self.best(stage, state)
        return point, best is None or point.loss < best.loss

    def best(self, stage: int, state: TrainingState) -> ValidationPoint | None:
        """The stage's point with the lowest loss, the first of equal points."""
        return min(self._points(stage, state), key=lambda point: point.loss, default=None)

    def is_over(self, stage: int, state: TrainingState) -> bool:
        """Whether to stop: the last ``patience`` measurements gave no new best."""
        best, points = self.best(stage, state), self._points(stage, state)
        if self.options.patience is None or best is None:
            return False
        return len(points) - 1 - points.index(best) >= self.options.patience

    @staticmethod
    def _points(stage: int, state: TrainingState) -> list[ValidationPoint]:
        return [point for point in state.validation if point.stage == stage]
