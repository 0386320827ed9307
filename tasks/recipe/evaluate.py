"""The recipe's `evaluate` block."""

from pydantic import Field

from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.recipe.component_fields import Metric


class EvaluateOptions(Contract):
    """The metrics, and whether to measure a control arm."""

    metrics: tuple[Metric, ...] = Field(min_length=1)
    control: bool = False  # train the unconverted base as the candidate was, and measure it
