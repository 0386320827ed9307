"""Per-item results of two arms, paired by item; or the reason why they are no evidence."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from layerwright.tasks.contracts.evaluation import Aggregate, Arm, Measurement
from layerwright.tasks.contracts.items import ItemResult
from layerwright.tasks.resampling import weighted_mean

SAME = 1e-6  # relative: what the items give and what the report says


class NotShown(Exception):  # noqa: N818 - the verdict on a rule, not a fault
    """There is no evidence for a rule; the message says why."""


@dataclass(frozen=True)
class Pairs:
    """Items of one metric in the candidate and in the arm that it is compared with.

    Attributes:
        candidate, other: (items,) values; ``other`` is None where nothing is compared.
        weights: (items,).
        aggregate: how the figure follows from their weighted mean.
        right_or_wrong: every item is one of the two, and counts the same.
    """

    candidate: np.ndarray
    other: np.ndarray | None
    weights: np.ndarray
    aggregate: Aggregate
    right_or_wrong: bool

    def __len__(self) -> int:
        return len(self.candidate)

    def whole(self, values: np.ndarray, weights: np.ndarray, axis: int = -1) -> np.ndarray:
        """The figure over all items, along an axis."""
        mean = weighted_mean(values, weights, axis)
        return np.exp(mean) if self.aggregate == "exp_mean" else mean

    @property
    def lost(self) -> int:
        """Right in the other arm, wrong in the candidate."""
        assert self.other is not None
        return int((self.other > self.candidate).sum())

    @property
    def won(self) -> int:
        assert self.other is not None
        return int((self.other < self.candidate).sum())


class ItemTable:
    """All items of an evaluation, by metric and arm."""

    def __init__(self, items: Iterable[ItemResult]) -> None:
        self._found: dict[tuple[str, Arm], list[ItemResult]] = {}
        for item in items:
            self._found.setdefault((item.metric, item.arm), []).append(item)

    def has(self, measurement: Measurement) -> bool:
        """Whether the measurement comes with items that it follows from."""
        known = (measurement.metric, measurement.arm) in self._found
        return known and measurement.aggregate is not None

    def pairs(self, candidate: Measurement, other: Measurement | None, chosen: str | None) -> Pairs:
        """The items of two measurements of one metric.

        Args:
            other: None where nothing is compared.
            chosen: a glob over slices; None for all items.

        Raises:
            NotShown: there are none, they differ between the arms, one could not be measured, or
                they do not add up to the measurement.
        """
        sides = [self._side(m) for m in (candidate, other) if m is not None]
        mine, theirs = sides[0], sides[-1]
        if mine.keys() != theirs.keys() or any(
            (mine[key].weight, mine[key].slice) != (theirs[key].weight, theirs[key].slice)
            for key in mine
        ):
            raise NotShown("the arms were not measured on the same items")
        keys = [key for key in mine if chosen is None or fnmatchcase(mine[key].slice, chosen)]
        if not keys:
            raise NotShown(f"no item is in the slice {chosen!r}")
        both = [(mine[key], theirs[key]) for key in keys]
        weights = np.array([item.weight for item, _ in both])
        assert candidate.aggregate is not None  # _side refuses those without
        return Pairs(
            np.array([item.value for item, _ in both], dtype=np.float64),
            np.array([item.value for _, item in both], dtype=np.float64) if other else None,
            weights,
            candidate.aggregate,
            all(a.correct is not None and b.correct is not None for a, b in both)
            and bool((weights == 1).all()),
        )

    def _side(self, measurement: Measurement) -> dict[str, ItemResult]:
        """The items of one measurement by id, once they are known to add up to it."""
        found = self._found.get((measurement.metric, measurement.arm), [])
        if not found or measurement.aggregate is None:
            raise NotShown(f"the {measurement.arm}'s figure has no per-item results")
        by_id = {item.item: item for item in found}
        if len(by_id) < len(found):
            raise NotShown(f"the {measurement.arm} has several results for one item")
        values = np.array([item.value for item in found], dtype=np.float64)
        if not np.isfinite(values).all():
            raise NotShown(f"the {measurement.arm} has items that could not be measured")
        weights = np.array([item.weight for item in found])
        if not (np.isfinite(weights) & (weights > 0)).all():
            raise NotShown(f"the {measurement.arm} has items without a positive weight")
        mean = float(weighted_mean(values, weights))
        whole = math.exp(mean) if measurement.aggregate == "exp_mean" else mean
        said = measurement.value
        if said is None or not math.isclose(whole, said, rel_tol=SAME, abs_tol=1e-12):
            raise NotShown(
                f"the {measurement.arm}'s items give {whole:.6g}, and the report says {said}"
            )
        return by_id
