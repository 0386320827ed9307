"""Metric, the base class of metrics, and Figure, the value of a metric for an arm."""

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from layerwright.tasks.components import Component
from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.contracts.evaluation import Aggregate, Arm, Measurement, Presentation
from layerwright.tasks.contracts.items import ItemResult
from layerwright.tasks.evaluate.arms import Arms
from layerwright.tasks.evaluate.passes import TextPass
from layerwright.tasks.recipe.data import TextForm

Count = Annotated[int, Field(gt=0)]
Counts = Annotated[tuple[Count, ...], Field(min_length=1)]
Names = Annotated[tuple[str, ...], Field(min_length=1)]


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
        return ()

    def check_items(self, folders: Mapping[str, Path]) -> None:
        """Check the items of the texts, by name, before the run starts and without a model.

        Raises:
            InputError: an item is not valid; names file, line and field.
        """

    def estimate_tokens(self) -> int:
        """Estimate the tokens that each arm is run over, without the passes."""
        return 0


class TextMetric(Metric):
    """A metric of texts, with a figure ``<family>.<text>`` for each family and text."""

    families: ClassVar[tuple[str, ...]]

    texts: Names

    def names(self) -> tuple[str, ...]:
        return tuple(f"{family}.{text}" for text in self.texts for family in self.families)

    def needed_texts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.texts))


class RowsMetric(TextMetric):
    """A metric of the first ``rows`` rows of each text, of ``row_tokens`` tokens."""

    divergence: ClassVar[bool] = False  # whether the arms are compared with the base

    rows: Count = 8
    row_tokens: Annotated[int, Field(gt=1)] = 1024

    def row_passes(self) -> tuple[TextPass, ...]:
        """The rows of each text, as a pass."""
        return tuple(TextPass(t, self.rows, self.row_tokens, self.divergence) for t in self.texts)

    @property
    def extent(self) -> str:
        return f"{self.rows} rows of {self.row_tokens} tokens"


def shown(label: str, help: str, part: str = "quality", **options: Any) -> Presentation:
    """A presentation of figures; see `Presentation` for the arguments."""
    return Presentation(label=label, help=help, part=part, **options)  # type: ignore[arg-type]


def measured(
    metric: str,
    arm: Arm,
    value: float,
    unit: str,
    *,
    higher_is_better: bool = False,
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
