"""Compare two arms of an evaluation symmetrically: neither is the reference."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from zlib import crc32

import numpy as np

from layerwright.tasks.contracts.comparison import FigureComparison, ItemChange, SideBySide
from layerwright.tasks.contracts.evaluation import Arm, EvalReport, Measurement
from layerwright.tasks.contracts.items import ItemResult
from layerwright.tasks.gate.comparison import chance_of_loss, compare_items
from layerwright.tasks.gate.pairs import ItemTable, NoEvidence
from layerwright.tasks.gate.statistics import holm
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
        items: per-item results of the report.
        min_items: metrics with fewer items get neither interval nor test.
        worst: number of regressions to list per metric.
        seed: of the bootstrap.
    """
    results = tuple(items)
    table = ItemTable(results)
    figures = [
        _figure(report, table, measurement, significance, min_items, seed)
        for measurement in report.measurements
        if measurement.arm == B
    ]
    tested = [i for i, figure in enumerate(figures) if figure.p_value is not None]
    adjusted = holm([figures[i].p_value or 0.0 for i in tested])
    for index, p_value in zip(tested, adjusted, strict=True):
        figures[index] = _judged(figures[index], p_value, significance)
    sides: dict[tuple[str, Arm], dict[str, ItemResult]] = {}
    for item in results:
        sides.setdefault((item.metric, item.arm), {})[item.item] = item
    changes = {figure.metric: list(_changes(figure, sides)) for figure in figures}
    return SideBySide(
        figures=tuple(figures),
        changed=tuple(
            change
            for figure in figures
            if figure.lost is not None
            for change in changes[figure.metric]
            if change.loss
        ),
        regressions=tuple(
            change
            for figure in figures
            for change in sorted(changes[figure.metric], key=lambda c: -c.loss)[:worst]
            if change.loss > 0
        ),
    )


def _figure(
    report: EvalReport,
    table: ItemTable,
    mine: Measurement,
    significance: float,
    min_items: int,
    seed: int,
) -> FigureComparison:
    other = report.find(mine.metric, A)
    figure = FigureComparison(
        metric=mine.metric,
        unit=mine.unit,
        higher_is_better=mine.higher_is_better,
        a=other.value if other else None,
        b=mine.value,
    )
    if other is None or other.value is None or mine.value is None:
        return figure.model_copy(update={"reason": "not measured in both checkpoints"})
    difference = mine.value - other.value
    figure = figure.model_copy(update={"difference": difference})
    if not table.has(mine):
        return figure.model_copy(update={"reason": "the metric has no per-item results"})
    try:
        pairs = table.pairs(mine, other, None)
    except NoEvidence as error:
        return figure.model_copy(update={"reason": str(error)})
    figure = figure.model_copy(update={"items": len(pairs)})
    if pairs.right_or_wrong:
        figure = figure.model_copy(update={"lost": pairs.lost, "won": pairs.won})
    if len(pairs) < min_items:
        few = f"too few items: {len(pairs)}, at least {min_items} are needed"
        return figure.model_copy(update={"reason": few})
    seed = crc32(f"compare/{seed}/{mine.metric}".encode())
    no_loss = GateRule(metric=mine.metric, arm="champion", compare="difference", min=0.0)
    draws = compare_items(no_loss, difference, pairs, significance, seed).draws
    assert draws is not None  # a difference always has draws
    assert pairs.other is not None
    swapped = replace(pairs, candidate=pairs.other, other=pairs.candidate)
    one_sided = [chance_of_loss(mine, p, significance, seed).p_value for p in (pairs, swapped)]
    update = {
        "low": _finite(np.quantile(draws, 0.025)),
        "high": _finite(np.quantile(draws, 0.975)),
        "p_value": min(1.0, 2 * min(p for p in one_sided if p is not None)),
    }
    return figure.model_copy(update=update)


def _finite(bound: np.floating) -> float | None:
    return float(bound) if np.isfinite(bound) else None


def _judged(figure: FigureComparison, p_value: float, significance: float) -> FigureComparison:
    better = "neither"
    if p_value < significance and figure.difference:
        better = "B" if (figure.difference > 0) == figure.higher_is_better else "A"
    return figure.model_copy(update={"p_value": p_value, "better": better})


def _changes(
    figure: FigureComparison, sides: Mapping[tuple[str, Arm], Mapping[str, ItemResult]]
) -> Iterator[ItemChange]:
    """The items of one metric whose values differ between the arms."""
    others = sides.get((figure.metric, A), {})
    for name, mine in sides.get((figure.metric, B), {}).items():
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
            text_a=_text(other),
            text_b=_text(mine),
        )


def _text(item: ItemResult) -> str | None:
    """An arm's answer to an item; None if the metric does not keep it."""
    return item.words.said if item.words else None
