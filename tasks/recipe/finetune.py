"""The recipe's `finetune` block: training after the conversion."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from layerwright.tasks.contracts.base import Number, Spec
from layerwright.tasks.recipe.training import (
    TrainingStage,
    TrainingText,
    ValidationOptions,
    WindowDropout,
)


class HealingStage(TrainingStage):
    """One stage of healing: what is minimised, and what may change for it.

    Only ``steps`` has to be said. Objective, targets and rate are those that healed best where
    context was taken away; rows and the other conversions: docs/healing.md, "Where to begin".

    ``parts`` are trained in full beside the adapter: ``linear`` maps, the learned ``mix`` of gated
    recurrences, and their ``decay`` biases; at ``parts_learning_rate``, or at the stage's. Weights
    trained in full want a lower one than adapters.
    """

    objectives: tuple[Spec, ...] = Field(default=(Spec(name="logit_kl"),), min_length=1)
    parts: tuple[Literal["linear", "mix", "decay"], ...] = ()
    parts_learning_rate: Number | None = Field(default=None, gt=0)
    window_dropout: WindowDropout | None = None

    @model_validator(mode="after")
    def _something_to_train(self) -> HealingStage:
        if self.adapter.kind == "none" and not self.parts:
            raise ValueError("an adapter, or some parts: a stage with neither trains nothing")
        if self.parts_learning_rate is not None and not self.parts:
            raise ValueError("parts for parts_learning_rate, or none of both")
        names = [spec.name for spec in self.objectives]
        if len(set(names)) < len(names):
            raise ValueError(f"each objective once, not {', '.join(names)}")
        return self


class FinetuneOptions(TrainingText):
    """Healing: stages of training with the base as teacher, one after the other."""

    stages: tuple[HealingStage, ...] = Field(min_length=1)
    validation: ValidationOptions | None = None
