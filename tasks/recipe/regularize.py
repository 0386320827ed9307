"""The recipe's `regularize` block: training of the base before layers are removed."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from layerwright.tasks.contracts.base import Number, Positive
from layerwright.tasks.recipe.training import TrainingStage, TrainingText, ValidationOptions


class RegularizeOptions(TrainingText, TrainingStage):
    """Training before removal (TRSP stage 2, arXiv 2505.18232).

    The loss is next-token loss plus a weight times the ``norm`` of what the layers to be removed
    add to the residual stream. It makes these layers contribute less, so that removing them costs
    less.
    """

    # penalise the layers to which the plan gives one of these
    strategies: tuple[Literal["remove", "linear"], ...] = Field(default=("remove",), min_length=1)
    norm: Literal["l2", "l1"] = "l2"
    # the penalty's weight. If there are several, each is tried for ``sweep_steps``, and the best on
    # ``validation`` is used.
    weights: tuple[Annotated[Number, Field(gt=0)], ...] = Field(
        default=(0.1,), min_length=1, max_length=8
    )
    sweep_steps: Positive = 8
    validation: ValidationOptions | None = None

    @model_validator(mode="after")
    def _sweep_is_scored(self) -> Self:
        if len(self.weights) > 1 and self.validation is None:
            raise ValueError("a validation text: several weights are compared on it")
        return self
