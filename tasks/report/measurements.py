"""Measurements sorted for reading: which figure belongs to which part of the page.

A name is ``family.subject``: ``perplexity.docs``, ``kv_bytes.8192.b4``. Metrics say how pages show
their families; the other families stand in the table of other measurements.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from layerwright.tasks.contracts.evaluation import (
    ARMS,
    Arm,
    EvalReport,
    Measurement,
    Presentation,
)
from layerwright.tasks.contracts.gate import GateDecision
from layerwright.tasks.contracts.workload import Workload


@dataclass(frozen=True)
class Row:
    """One metric over the arms. ``subject`` is what follows the first dot of its name."""

    metric: str
    family: str
    subject: str
    arms: dict[Arm, Measurement]
    known: Presentation

    @property
    def any(self) -> Measurement:
        return next(iter(self.arms.values()))

    def value(self, arm: Arm) -> float | None:
        found = self.arms.get(arm)
        return found.value if found else None

    @property
    def change(self) -> float | None:
        """Candidate over base, minus one."""
        base, candidate = self.value("base"), self.value("candidate")
        return candidate / base - 1 if base and candidate is not None and base > 0 else None

    @property
    def note(self) -> str:
        """What the figure is and how it was measured, once where all arms say the same."""
        details = (m.detail for m in self.arms.values() if m.value is not None and m.detail)
        name = self.known.label
        if self.known.part == "other":
            name = (
                f"{self.any.unit}, {'higher' if self.any.higher_is_better else 'lower'} is better"
            )
        return "; ".join(dict.fromkeys((name, *details)))

    @property
    def workload(self) -> Workload | None:
        """Context length, new tokens and batch size in the name, where it has them."""
        return Workload.parse(self.subject)

    @property
    def tokens(self) -> int | None:
        """The context length in the name, where it is one."""
        return self.workload and self.workload.prompt_tokens

    @property
    def batch(self) -> int:
        return self.workload.batch if self.workload else 1


def rows(report: EvalReport) -> list[Row]:
    """One row per metric, families in the order of the recipe's metrics, then the unknown ones."""
    return rows_of(report.measurements, report.presentation)


def rows_of(
    measurements: Iterable[Measurement], presentation: Mapping[str, Presentation]
) -> list[Row]:
    """As ``rows``, of measurements."""
    order = list(presentation)
    found: dict[str, dict[Arm, Measurement]] = {}
    for measurement in measurements:
        found.setdefault(measurement.metric, {})[measurement.arm] = measurement
    all_rows = []
    for metric, arms in found.items():
        family, _, subject = metric.partition(".")
        known = presentation.get(family) or Presentation(label=family)
        ordered = {arm: arms[arm] for arm in ARMS if arm in arms}
        row = Row(metric, family, subject, ordered, known)
        if known.part == "by_length" and row.tokens is None:  # no length in its name: no curve
            row = Row(metric, metric, "", ordered, Presentation(label=metric))
        all_rows.append(row)
    all_rows.sort(key=lambda r: order.index(r.family) if r.family in order else len(order))
    return all_rows


def families(some: list[Row]) -> dict[str, list[Row]]:
    grouped: dict[str, list[Row]] = {}
    for row in some:
        grouped.setdefault(row.family, []).append(row)
    return grouped


def curves(some: list[Row]) -> list[list[Row]]:
    """Rows that are one curve over the length: a family at one batch size and answer length."""
    grouped: dict[tuple[str, int, int], list[Row]] = {}
    for row in some:
        if load := row.workload:
            grouped.setdefault((row.family, load.batch, load.new_tokens), []).append(row)
    return list(grouped.values())


def limit_of(row: Row, all_rows: list[Row], decision: GateDecision) -> float | None:
    """The gate's limit on the scale of ``row``'s own values, where a check gives one.

    A limit on the ratio of two perplexities is also one on the ratio that was measured.
    """
    source = {r.metric: r for r in all_rows}
    for check in decision.checks:
        judged = source.get(check.metric)
        if judged is None or check.value is None or check.arm != "base" or check.slice:
            continue
        if check.compare == "ratio" and row.metric == f"perplexity_ratio.{judged.subject}":
            return check.limit
        if judged is not row:
            continue
        if check.compare == "value":
            return check.limit
        base = judged.value("base")
        if base is not None and check.compare == "ratio":
            return check.limit * base
        if base is not None and check.compare == "difference":
            return base + check.limit
    return None


def longest(found: list[Row], family: str) -> Row | None:
    """The family's row of one request at a time, at the longest context that both arms have."""
    some = [
        r
        for r in found
        if r.family == family and r.change is not None and r.tokens and r.batch == 1
    ]
    return max(some, key=lambda r: r.tokens or 0, default=None)
