"""Metric, the base class of metrics, and Figure, its value for an arm, computed from items."""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field
from scipy.stats import binomtest

from layerwright.tasks.components import Component
from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.contracts.evaluation import Aggregate, Arm, Measurement, Presentation
from layerwright.tasks.contracts.items import ItemResult, Words
from layerwright.tasks.evaluate.arms import Arms
from layerwright.tasks.evaluate.passes import TextPass
from layerwright.tasks.recipe.data import TextForm
from layerwright.tasks.resampling import resample, weighted_mean

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

        Build figures over items with ``scored`` (this file), which keeps the items,
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

    def over_tokens(
        self, arms: Arms, arm: Arm, metric: str, values: np.ndarray, unit: str, **options: Any
    ) -> Figure:
        """The figure of ``values`` (rows, tokens), over blocks of tokens; options of ``scored``."""
        blocks, seed = token_blocks(values), arms.seed_of(metric)
        return scored(metric, arm, blocks, unit, seed, detail=self.extent, **options)


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
    """A figure; without a value and with the detail ``not_finite`` if ``value`` is not finite.

    Args:
        count: number of samples or items.
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


BLOCK_TOKENS = 128
AGGREGATES: dict[Aggregate, Callable[[np.ndarray], np.ndarray]] = {
    "mean": lambda mean: mean,
    "exp_mean": np.exp,
}


@dataclass(frozen=True)
class Item:
    """The result of an item for an arm."""

    id: str  # the same in every arm
    value: float | bool  # True or False if it is right or wrong; NaN if it could not be measured
    weight: float = 1.0  # for instance its tokens
    slice: str = ""  # name of the group that the item belongs to
    words: Words | None = None  # for the report


def scored(
    metric: str,
    arm: Arm,
    items: Sequence[Item],
    unit: str,
    seed: int,
    *,
    higher_is_better: bool = False,
    aggregate: Aggregate = "mean",
    detail: str = "",
    not_finite: str = "an item could not be measured",
) -> Figure:
    """The weighted mean of one or more items, or its exp, with a 95 % interval; see ``measured``.

    The interval is Wilson's if every item is right or wrong, else a bootstrap over items; a single
    item has none. The count is the sum of the weights.
    """
    values = np.array([float(item.value) for item in items])
    weights = np.array([item.weight for item in items])
    transform = AGGREGATES[aggregate]
    with np.errstate(over="ignore", invalid="ignore"):  # a value that is not finite is reported
        value = float(transform(weighted_mean(values, weights)))
    interval = None
    if all(isinstance(item.value, bool) for item in items):
        interval = binomtest(int(values.sum()), len(items)).proportion_ci(method="wilson")
    elif np.isfinite(values).all() and len(items) > 1:
        interval = resample(
            (values, weights), lambda v, w, axis=-1: transform(weighted_mean(v, w, axis)), seed
        ).confidence_interval
    return measured(
        metric,
        arm,
        value,
        unit,
        higher_is_better=higher_is_better,
        interval=interval and (float(interval.low), float(interval.high)),
        count=round(float(weights.sum())),
        detail=detail,
        not_finite=not_finite,
        aggregate=aggregate,
        items=results(metric, arm, items),
    )


def results(metric: str, arm: Arm, items: Iterable[Item]) -> tuple[ItemResult, ...]:
    """Convert items to the contract that is stored."""
    return tuple(
        ItemResult(
            metric=metric,
            arm=arm,
            item=item.id,
            correct=item.value if isinstance(item.value, bool) else None,
            value=float(item.value) if np.isfinite(item.value) else None,
            weight=item.weight,
            slice=item.slice,
            words=item.words,
        )
        for item in items
    )


def token_blocks(values: np.ndarray) -> list[Item]:
    """Return the mean of every block of 128 tokens of a row as an item.

    Neighbouring tokens are not independent, so the bootstrap draws whole blocks (Künsch's block
    bootstrap). Slices are position ranges of doubling size: 0-127, 128-255, 256-511, ...

    Args:
        values: (rows, tokens) a value per token, for instance the NLL in nats.
    """
    blocks = []
    for row, row_values in enumerate(values.astype(np.float64)):
        for start in range(0, len(row_values), BLOCK_TOKENS):
            block = row_values[start : start + BLOCK_TOKENS]
            name = f"row {row}, {start}-{start + len(block) - 1}"
            high = BLOCK_TOKENS << (start // BLOCK_TOKENS).bit_length()
            low = high // 2 if start else 0
            with np.errstate(invalid="ignore"):
                mean = float(block.mean())
            blocks.append(Item(name, mean, len(block), f"positions {low}-{high - 1}"))
    return blocks
