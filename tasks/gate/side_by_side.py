"""Compare two arms of an evaluation symmetrically: neither is the reference."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any
from zlib import crc32

import numpy as np

from layerwright.tasks.contracts.comparison import FigureComparison, ItemChange, SideBySide
from layerwright.tasks.contracts.evaluation import Arm, EvalReport, Measurement
from layerwright.tasks.contracts.items import ItemResult
from layerwright.tasks.gate.comparison import chance_of_loss, compare_items, holm
from layerwright.tasks.gate.pairs import ItemTable, NoEvidence
from layerwright.tasks.recipe.gate import GateRule

A: Arm = "champion"
B: Arm = "candidate"


def compare_arms(
    report: EvalReport,
    items: Iterable[ItemResult],
    *,
    significance: float = 0.05,
    min_items: int = 20,
    worst: int = 5,
    seed: int = 0,
) -> SideBySide:
    """Compare the champion arm (A) with the candidate arm (B), metric by metric, item by item.

    For a metric with items, the difference gets a 95 % confidence interval (paired bootstrap) and a
    two-sided p-value: twice the smaller of the two one-sided p-values, from McNemar's exact test
    if items are right or wrong, from the bootstrap otherwise. The p-values are adjusted over all
    metrics by Holm's method.

    Args:
        min_items: metrics with fewer items get neither interval nor test.
        worst: number of regressions to list per metric.
    """
    table = ItemTable(items)
    figures = [
        FigureComparison(**_figure(report, table, measurement, significance, min_items, seed))
        for measurement in report.measurements
        if measurement.arm == B
    ]
    tested = {i: figure.p_value for i, figure in enumerate(figures) if figure.p_value is not None}
    for index, p_value in zip(tested, holm([*tested.values()]), strict=True):
        figures[index] = _judged(figures[index], p_value, significance)
    changes = [list(_changes(figure, table)) for figure in figures]
    pairs = list(zip(figures, changes, strict=True))
    most = [sorted(change, key=lambda c: -c.loss)[:worst] for change in changes]
    return SideBySide(
        figures=tuple(figures),
        changed=tuple(c for f, of in pairs if f.lost is not None for c in of if c.loss),
        regressions=tuple(change for of in most for change in of if change.loss > 0),
    )


def _figure(
    report: EvalReport,
    table: ItemTable,
    mine: Measurement,
    significance: float,
    min_items: int,
    seed: int,
) -> dict[str, Any]:
    """The fields of a FigureComparison."""
    other = report.find(mine.metric, A)
    figure = mine.model_dump(include={"metric", "unit", "higher_is_better"})
    figure |= {"a": other.value if other else None, "b": mine.value}
    if other is None or other.value is None or mine.value is None:
        return figure | {"reason": "not measured in both checkpoints"}
    figure["difference"] = mine.value - other.value
    if not table.has(mine):
        return figure | {"reason": "the metric has no per-item results"}
    try:
        pairs = table.pairs(mine, other, None)
    except NoEvidence as error:
        return figure | {"reason": str(error)}
    figure["items"] = len(pairs)
    if pairs.right_or_wrong:
        figure |= {"lost": pairs.lost, "won": pairs.won}
    if len(pairs) < min_items:
        few = f"too few items: {len(pairs)}, at least {min_items} are needed"
        return figure | {"reason": few}
    seed = crc32(f"compare/{seed}/{mine.metric}".encode())
    no_loss = GateRule(metric=mine.metric, arm="champion", compare="difference", min=0.0)
    draws = compare_items(no_loss, figure["difference"], pairs, significance, seed).draws
    assert draws is not None  # a difference always has draws
    assert pairs.other is not None
    swapped = replace(pairs, candidate=pairs.other, other=pairs.candidate)
    one_sided = [chance_of_loss(mine, p, significance, seed).p_value for p in (pairs, swapped)]
    low, high = np.quantile(draws, (0.025, 0.975))
    p_value = min(1.0, 2 * min(p for p in one_sided if p is not None))
    return figure | {"low": _finite(low), "high": _finite(high), "p_value": p_value}


def _finite(bound: np.floating) -> float | None:
    return float(bound) if np.isfinite(bound) else None


def _judged(figure: FigureComparison, p_value: float, significance: float) -> FigureComparison:
    better = "neither"
    if p_value < significance and figure.difference:
        better = "B" if (figure.difference > 0) == figure.higher_is_better else "A"
    return figure.model_copy(update={"p_value": p_value, "better": better})


def _changes(figure: FigureComparison, table: ItemTable) -> Iterator[ItemChange]:
    """The items of one metric whose values differ between the arms."""
    others = table.of(figure.metric, A)
    for name, mine in table.of(figure.metric, B).items():
        other = others.get(name)
        if other is None or mine.value is None or other.value is None or mine.value == other.value:
            continue
        gain = mine.value - other.value
        yield ItemChange(
            metric=figure.metric,
            item=name,
            slice=mine.slice,
            a=other.value,
            b=mine.value,
            loss=-gain if figure.higher_is_better else gain,
            prompt=mine.words.prompt if mine.words else None,
            text_a=other.words.said if other.words else None,
            text_b=mine.words.said if mine.words else None,
        )
