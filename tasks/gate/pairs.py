"""Per-item results of two arms, paired by item, after checks that they are valid evidence."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from layerwright.tasks.contracts.evaluation import Aggregate, Arm, Measurement
from layerwright.tasks.contracts.items import ItemResult
from layerwright.tasks.resampling import weighted_mean

TOLERANCE = 1e-6  # relative, between the items' mean and the reported value


class NoEvidence(Exception):  # noqa: N818 - it leads to a failed check, not to a program error
    """There is no evidence for a rule; the message says why."""


@dataclass(frozen=True)
class Pairs:
    """The items of one metric in the candidate and in the other arm."""

    candidate: np.ndarray  # (items,) values
    other: np.ndarray | None  # (items,) values; None if the rule compares nothing
    weights: np.ndarray  # (items,)
    aggregate: Aggregate  # how the figure follows from the weighted mean
    right_or_wrong: bool  # every item is right (1) or wrong (0), and all weights are equal

    def __len__(self) -> int:
        return len(self.candidate)

    def figure(self, values: np.ndarray, weights: np.ndarray, axis: int = -1) -> np.ndarray:
        """The metric's figure of item values, along an axis."""
        mean = weighted_mean(values, weights, axis)
        return np.exp(mean) if self.aggregate == "exp_mean" else mean

    @property
    def lost(self) -> int:
        """Number of items that only the other arm answers correctly."""
        assert self.other is not None
        return int((self.other > self.candidate).sum())

    @property
    def won(self) -> int:
        """Number of items that only the candidate answers correctly."""
        assert self.other is not None
        return int((self.other < self.candidate).sum())


class ItemTable:
    """All items of an evaluation, by metric and arm."""

    def __init__(self, items: Iterable[ItemResult]) -> None:
        self._items: dict[tuple[str, Arm], list[ItemResult]] = {}
        for item in items:
            self._items.setdefault((item.metric, item.arm), []).append(item)

    def of(self, metric: str, arm: Arm) -> dict[str, ItemResult]:
        """The items of a metric in an arm, by id."""
        return {item.item: item for item in self._items.get((metric, arm), ())}

    def has(self, measurement: Measurement) -> bool:
        """Whether the measurement has items and follows from them."""
        known = (measurement.metric, measurement.arm) in self._items
        return known and measurement.aggregate is not None

    def pairs(self, candidate: Measurement, other: Measurement | None, chosen: str | None) -> Pairs:
        """The paired items of two measurements of one metric, in slices that match ``chosen``.

        Raises:
            NoEvidence: there are no items, the arms have different items, an item was not measured,
                or the items do not give the measurement's value.
        """
        sides = [self._side(m) for m in (candidate, other) if m is not None]
        mine, theirs = sides[0], sides[-1]
        if mine.keys() != theirs.keys() or any(
            (mine[key].weight, mine[key].slice) != (theirs[key].weight, theirs[key].slice)
            for key in mine
        ):
            raise NoEvidence("the two arms were not measured on the same items")
        keys = [key for key in mine if chosen is None or fnmatchcase(mine[key].slice, chosen)]
        if not keys:
            raise NoEvidence(f"no item is in the slice {chosen!r}")
        both = [(mine[key], theirs[key]) for key in keys]
        weights = np.array([item.weight for item, _ in both])
        binary = all(a.correct is not None and b.correct is not None for a, b in both)
        assert candidate.aggregate is not None  # `_side` checks it
        return Pairs(
            np.array([item.value for item, _ in both], dtype=np.float64),
            np.array([item.value for _, item in both], dtype=np.float64) if other else None,
            weights,
            candidate.aggregate,
            binary and bool((weights == 1).all()),
        )

    def _side(self, measurement: Measurement) -> dict[str, ItemResult]:
        """The items of one measurement by id, after checking that they give its value."""
        arm, reported = measurement.arm, measurement.value
        items = self._items.get((measurement.metric, arm), [])
        if not items or measurement.aggregate is None:
            raise NoEvidence(f"the {arm}'s value has no per-item results")
        by_id = self.of(measurement.metric, arm)
        if len(by_id) < len(items):
            raise NoEvidence(f"the {arm} has several results for one item")
        values = np.array([item.value for item in items], dtype=np.float64)
        if not np.isfinite(values).all():
            raise NoEvidence(f"the {arm} has items that could not be measured")
        weights = np.array([item.weight for item in items])
        if not (np.isfinite(weights) & (weights > 0)).all():
            raise NoEvidence(f"the {arm} has items without a positive weight")
        mean = float(weighted_mean(values, weights))
        computed = math.exp(mean) if measurement.aggregate == "exp_mean" else mean
        close = {"rel_tol": TOLERANCE, "abs_tol": 1e-12}
        if reported is None or not math.isclose(computed, reported, **close):
            raise NoEvidence(
                f"the {arm}'s items give {computed:.6g}, but the evaluation reports {reported}"
            )
        return by_id
