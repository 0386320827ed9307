"""Held-out rows during training: when they are read, which state was best, when to stop."""

from __future__ import annotations

from dataclasses import dataclass

from layerwright.tasks.contracts.training import ValidationPoint
from layerwright.tasks.finetune.losses import StageLoss
from layerwright.tasks.finetune.rows import Rows
from layerwright.tasks.finetune.snapshot import TrainingState
from layerwright.tasks.recipe.training import ValidationOptions


@dataclass(frozen=True)
class Validation:
    """The rows and the recipe's options; what was measured lies in the training's state."""

    rows: Rows
    options: ValidationOptions

    def due(self, stage: int, steps: int, state: TrainingState, finished: TrainingState) -> bool:
        """Before a stage's first step, every so many tokens, and after its last step."""
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
        """The point, and whether it is the stage's best."""
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
        """The first of the lowest."""
        return min(self._points(stage, state), key=lambda point: point.loss, default=None)

    def is_over(self, stage: int, state: TrainingState) -> bool:
        """Whether ``patience`` measurements have gone by without a new best."""
        best, points = self.best(stage, state), self._points(stage, state)
        if self.options.patience is None or best is None:
            return False
        return len(points) - 1 - points.index(best) >= self.options.patience

    @staticmethod
    def _points(stage: int, state: TrainingState) -> list[ValidationPoint]:
        return [point for point in state.validation if point.stage == stage]
