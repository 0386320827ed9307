"""Metric, the base class of metrics, and Figure, the value of a metric for an arm."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from layerwright.tasks.components import Component
from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.contracts.evaluation import Aggregate, Arm, Measurement, Presentation
from layerwright.tasks.contracts.items import ItemResult
from layerwright.tasks.evaluate.arms import Arms
from layerwright.tasks.evaluate.texts import TextPass
from layerwright.tasks.recipe.data import TextForm


class Figure(Contract):
    """The value of a metric for an arm, with the result of each item if there are items."""

    measurement: Measurement
    items: tuple[ItemResult, ...] = ()


class Metric(Component):
    """A way to measure the arms. A new metric is a file in tasks/evaluate/metrics."""

    kind: ClassVar[str] = "metric"
    room: ClassVar[str] = "layerwright.tasks.evaluate.metrics"
    form: ClassVar[TextForm] = "text"  # the `form` of the texts that the metric reads
    presentation: ClassVar[Mapping[str, Presentation]] = {}  # by the name up to the first dot

    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The names of all measurements that ``measure`` may yield."""

    @abstractmethod
    def measure(self, arms: Arms) -> Iterator[Figure]:
        """Measure every arm that the metric applies to.

        Build figures over items with ``scored`` (tasks/evaluate/scoring.py), which keeps the items,
        and other figures with ``measured``. A value that is not finite never raises: it becomes a
        measurement without a value, and its ``detail`` states the reason.
        """

    def passes(self) -> tuple[TextPass, ...]:
        """The passes over texts that ``measure`` reads; metrics share equal passes."""
        return ()

    def needed_texts(self) -> tuple[str, ...]:
        """The names of the texts that the metric reads from the recipe's ``data``."""
        return tuple(dict.fromkeys(text_pass.text for text_pass in self.passes()))

    def check_items(self, folders: Mapping[str, Path]) -> None:
        """Check the items of the texts before the run starts, without a model.

        Args:
            folders: the text trees, by name.

        Raises:
            InputError: an item is not valid; names file, line and field.
        """

    def estimate_tokens(self) -> int:
        """Estimate the tokens that each arm is run over, without the passes."""
        return 0


def measured(
    metric: str,
    arm: Arm,
    value: float,
    *,
    unit: str,
    higher_is_better: bool,
    interval: tuple[float, float] | None = None,
    count: int = 0,
    detail: str = "",
    not_finite: str = "the result is not a finite number",
    aggregate: Aggregate | None = None,
    items: Sequence[ItemResult] = (),
) -> Figure:
    """Return a figure; if ``value`` is not finite, a figure without a value.

    Args:
        interval: lowest and highest value.
        count: number of samples or items.
        detail: how the value was measured.
        not_finite: the detail of a figure without a value.
        aggregate: how the value follows from the items.
    """
    finite = math.isfinite(value)
    low, high = interval if interval and finite else (None, None)
    measurement = Measurement(
        metric=metric,
        arm=arm,
        value=value if finite else None,
        unit=unit,
        higher_is_better=higher_is_better,
        low=low,
        high=high,
        count=count,
        detail=detail if finite else not_finite,
        aggregate=aggregate,
    )
    return Figure(measurement=measurement, items=tuple(items))
