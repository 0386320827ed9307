"""Compute a figure from its items: value, interval, and the item results for the gate."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from layerwright.tasks.contracts.evaluation import Aggregate, Arm
from layerwright.tasks.contracts.items import ItemResult, Words
from layerwright.tasks.evaluate.base import Figure, measured
from layerwright.tasks.resampling import resample, weighted_mean

BLOCK_TOKENS = 128
AGGREGATES: dict[Aggregate, Callable[[np.ndarray], np.ndarray]] = {
    "mean": lambda mean: mean,
    "exp_mean": np.exp,
}


@dataclass(frozen=True)
class Item:
    """The result of an item for an arm.

    Attributes:
        id: name of the item, the same in every arm.
        value: True or False if the item is right or wrong; NaN if it could not be measured.
        weight: weight of the item, for instance its tokens.
        slice: name of the group that the item belongs to.
        words: prompt, expected answer and answer, for the report.
    """

    id: str
    value: float | bool
    weight: float = 1.0
    slice: str = ""
    words: Words | None = None


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
    """Return the weighted mean of the items, or its exp, with a 95 % interval.

    The interval is Wilson's if every item is right or wrong, else a bootstrap over items; a single
    item has none. The count is the sum of the weights.

    Args:
        items: at least one item.
        seed: seed of the bootstrap.
        aggregate: ``mean`` or ``exp_mean``.
        detail: how the items were measured.
        not_finite: the detail if the value is not finite.
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
