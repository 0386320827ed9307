"""The recipe's `regularize` block: training before layers are removed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from layerwright.tasks.contracts.base import Number, Positive
from layerwright.tasks.recipe.training import TrainingStage, TrainingText, ValidationOptions


class RegularizeOptions(TrainingText, TrainingStage):
    """Training before removal (TRSP stage 2, arXiv 2505.18232).

    Next-token loss plus ``weight`` times what the doomed layers change in the stream, so that they
    can go. Doomed are the layers whose strategy in the plan is one of ``strategies``. Of several
    ``weights`` each is tried for ``sweep_steps``, and the best on ``validation`` is taken.
    """

    strategies: tuple[Literal["remove", "linear"], ...] = Field(default=("remove",), min_length=1)
    norm: Literal["l2", "l1"] = "l2"
    weights: tuple[Annotated[Number, Field(gt=0)], ...] = Field(
        default=(0.1,), min_length=1, max_length=8
    )
    sweep_steps: Positive = 8
    validation: ValidationOptions | None = None

    @model_validator(mode="after")
    def _sweep_is_scored(self) -> RegularizeOptions:
        if len(self.weights) > 1 and self.validation is None:
            raise ValueError("a validation text, on which the weights are compared")
        return self
