"""What a metric is: options, what it needs, the names of its figures, and the measuring itself."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from layerwright.tasks.components import Component
from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.contracts.evaluation import Aggregate, Arm, Measurement
from layerwright.tasks.contracts.items import ItemResult
from layerwright.tasks.recipe.data import TextForm

if TYPE_CHECKING:  # arms reads TextPass from here
    from layerwright.tasks.evaluate.arms import Arms


@dataclass(frozen=True)
class TextPass:
    """Rows of a text that every arm is run over once, whichever metrics read the outcome.

    Attributes:
        divergence: an arm other than the base is also compared with the base, token by token.
            Passes that differ in this alone are equal: one pass serves both.
    """

    text: str
    rows: int
    row_tokens: int
    divergence: bool = field(default=False, compare=False)

    @property
    def tokens(self) -> int:
        return self.rows * self.row_tokens


class Figure(Contract):
    """One figure of one arm, with what it made of each item where there are items."""

    measurement: Measurement
    items: tuple[ItemResult, ...] = ()


class Metric(Component):
    """One way to measure the arms. A new metric is one file in this room."""

    kind: ClassVar[str] = "metric"
    room: ClassVar[str] = "layerwright.tasks.evaluate.metrics"
    form: ClassVar[TextForm] = "text"  # of the texts that it needs

    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The names of all measurements that ``measure`` yields, for any arm."""

    @abstractmethod
    def measure(self, arms: Arms) -> Iterator[Figure]:
        """Measure every arm that the metric applies to.

        A figure over items comes from ``scored`` (tasks/evaluate/scoring.py), which keeps them;
        one without items from ``measured``. What is not a finite number becomes a measurement
        without a value, with the reason in its ``detail``; it is never an exception.
        """

    def passes(self) -> tuple[TextPass, ...]:
        """The passes over texts that ``measure`` reads; metrics share equal ones."""
        return ()

    def needed_texts(self) -> tuple[str, ...]:
        """The texts of the recipe's ``data`` that must be there."""
        return tuple(dict.fromkeys(wanted.text for wanted in self.passes()))

    def check_items(self, folders: Mapping[str, Path]) -> None:
        """Read the items that are asked, without any model and before anything else is done.

        Raises:
            InputError: with file, line and field.
        """

    def estimate_tokens(self) -> int:
        """Roughly how many tokens each arm is run over outside the passes."""
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
    """A figure; if ``value`` is not finite, one without a value that says why."""
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
