"""The worst regressions: items that the base does better, with the answers of both."""

from collections.abc import Iterable

from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.contracts.evaluation import EvalReport
from layerwright.tasks.contracts.items import ItemResult, Words

SHOWN = 5  # regressions per metric
MAX_CHARACTERS = 600  # per answer


class Regression(Contract):
    """One item on which the candidate is worse than the base, with both results and answers."""

    item: str
    slice: str
    base: float
    candidate: float
    prompt: str
    expected: str
    base_said: str
    candidate_said: str


class Regressions(Contract):
    """The regressions of one metric: ``lost`` of ``items`` are worse; ``worst`` are shown."""

    metric: str
    lost: int
    items: int
    right_or_wrong: bool
    worst: tuple[Regression, ...]


def regressions(report: EvalReport, items: Iterable[ItemResult]) -> tuple[Regressions, ...]:
    """The regressions of each metric whose items have words, the largest losses first.

    An item that was not measured in both arms is left out; the gate fails because of it.
    """
    by_metric: dict[str, dict[str, dict[str, ItemResult]]] = {}
    for item in items:
        if item.words is not None and item.arm in ("base", "candidate"):
            by_metric.setdefault(item.metric, {}).setdefault(item.item, {})[item.arm] = item
    result = []
    for metric, by_item in by_metric.items():
        pairs = [(a["base"], a["candidate"]) for a in by_item.values() if len(a) == 2]
        measured = report.find(metric, "candidate")
        sign = 1 if measured is None or measured.higher_is_better else -1
        lost = [
            (sign * (base.value - mine.value), base, mine)
            for base, mine in pairs
            if base.value is not None
            if mine.value is not None and sign * (base.value - mine.value) > 0
        ]
        if lost:
            lost.sort(key=lambda entry: -entry[0])
            result.append(
                Regressions(
                    metric=metric,
                    lost=len(lost),
                    items=len(pairs),
                    right_or_wrong=all(base.correct is not None for base, _ in pairs),
                    worst=tuple(_regression(base, mine) for _, base, mine in lost[:SHOWN]),
                )
            )
    return tuple(result)


def _regression(base: ItemResult, candidate: ItemResult) -> Regression:
    asked, said = base.words, candidate.words
    assert isinstance(asked, Words)
    assert isinstance(said, Words)
    assert base.value is not None
    assert candidate.value is not None
    return Regression(
        item=base.item,
        slice=base.slice,
        base=base.value,
        candidate=candidate.value,
        prompt=asked.prompt,
        expected=_cut(asked.expected),
        base_said=_cut(asked.said),
        candidate_said=_cut(said.said),
    )


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS] + " …"
