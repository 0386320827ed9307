"""Two arms of one evaluation against each other, neither of them in the right."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from zlib import crc32

import numpy as np

from layerwright.tasks.contracts.comparison import FigureComparison, ItemChange, SideBySide
from layerwright.tasks.contracts.evaluation import Arm, EvalReport, Measurement
from layerwright.tasks.contracts.items import ItemResult
from layerwright.tasks.gate.comparison import chance_of_loss, compare_items
from layerwright.tasks.gate.pairs import ItemTable, NotShown, Pairs
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
    """The champion's arm as A and the candidate's as B, metric by metric, item by item.

    Each figure with items has the difference's 95 % interval by the paired bootstrap and a
    two-sided p-value, twice the smaller of the two one-sided ones: McNemar's exact test where items
    are right or wrong, else the bootstrap's. They are adjusted over all metrics (Holm).

    Args:
        items: of the report.
        min_items: fewer give neither interval nor test.
        worst: how many items are named for each metric whose items are not right or wrong.
        seed: of the bootstrap.
    """
    kept = tuple(items)
    table = ItemTable(kept)
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
    for item in kept:
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
    found = FigureComparison(
        metric=mine.metric,
        unit=mine.unit,
        higher_is_better=mine.higher_is_better,
        a=other.value if other else None,
        b=mine.value,
    )
    if other is None or other.value is None or mine.value is None:
        return found.model_copy(update={"reason": "it was not measured in both"})
    difference = mine.value - other.value
    found = found.model_copy(update={"difference": difference})
    if not table.has(mine):
        return found.model_copy(update={"reason": "it has no items to be paired"})
    try:
        pairs = table.pairs(mine, other, None)
    except NotShown as nothing:
        return found.model_copy(update={"reason": str(nothing)})
    found = found.model_copy(update={"items": len(pairs)})
    if pairs.right_or_wrong:
        found = found.model_copy(update={"lost": pairs.lost, "won": pairs.won})
    if len(pairs) < min_items:
        few = f"too few items: {len(pairs)} of at least {min_items}"
        return found.model_copy(update={"reason": few})
    seed = crc32(f"compare/{seed}/{mine.metric}".encode())
    no_loss = GateRule(metric=mine.metric, arm="champion", compare="difference", min=0.0)
    draws = compare_items(no_loss, difference, pairs, significance, seed).draws
    assert draws is not None  # of a difference there always are
    turned = Pairs(
        pairs.other,  # type: ignore[arg-type]
        pairs.candidate,
        pairs.weights,
        pairs.aggregate,
        pairs.right_or_wrong,
    )
    one_sided = [chance_of_loss(mine, p, significance, seed).p_value for p in (pairs, turned)]
    update = {
        "low": _finite(np.quantile(draws, 0.025)),
        "high": _finite(np.quantile(draws, 0.975)),
        "p_value": min(1.0, 2 * min(p for p in one_sided if p is not None)),
    }
    return found.model_copy(update=update)


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
    """The items of one metric that both arms have and that differ."""
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
    """What an arm wrote on an item, where the metric keeps it."""
    return item.words.said if item.words else None
