"""The recipe's `finetune` block: training after the conversion."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from layerwright.tasks.contracts.base import Number
from layerwright.tasks.recipe.component_fields import Objective
from layerwright.tasks.recipe.training import (
    TrainingStage,
    TrainingText,
    ValidationOptions,
    WindowDropout,
)


class HealingStage(TrainingStage):
    """One stage of healing. Only ``steps`` is required.

    The default objective, targets and learning rate are those that recovered most quality for
    strategies that shorten the context; docs/healing.md, "Where to begin", has the other cases."""

    # the losses to minimise
    objectives: tuple[Objective, ...] = Field(
        default=({"name": "logit_kl"},), validate_default=True, min_length=1
    )
    # tensors trained in full, next to the adapter: ``linear`` maps, the learned ``mix`` of gated
    # recurrences, and their ``decay`` biases
    parts: tuple[Literal["linear", "mix", "decay"], ...] = ()
    # by default the stage's; parts usually need a lower one than adapters
    parts_learning_rate: Number | None = Field(default=None, gt=0)
    window_dropout: WindowDropout | None = None

    @model_validator(mode="after")
    def _something_to_train(self) -> HealingStage:
        if self.adapter.kind == "none" and not self.parts:
            raise ValueError("an adapter or parts: a stage with neither trains nothing")
        if self.parts_learning_rate is not None and not self.parts:
            raise ValueError("parts together with parts_learning_rate, or neither")
        names = [objective.name for objective in self.objectives]
        if len(set(names)) < len(names):
            raise ValueError(f"each objective once, not {', '.join(names)}")
        return self


class FinetuneOptions(TrainingText):
    """Healing: stages of training, one after the other, with the base as teacher."""

    stages: tuple[HealingStage, ...] = Field(min_length=1)
    validation: ValidationOptions | None = None
