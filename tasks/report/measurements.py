"""Group measurements into rows, and assign each row to a section of the page.

A metric's name is ``family.subject``: ``perplexity.docs``, ``kv_bytes.8192.b4``. The metrics define
how pages show their families; other families appear in the table of other measurements.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from layerwright.tasks.contracts.evaluation import ARMS, Arm, EvalReport, Measurement, Presentation
from layerwright.tasks.contracts.gate import GateDecision
from layerwright.tasks.contracts.workload import Workload


class Row(NamedTuple):
    """One metric in all arms. ``subject`` is the part of its name after the first dot."""

    metric: str
    family: str
    subject: str
    arms: dict[Arm, Measurement]
    known: Presentation

    @property
    def any(self) -> Measurement:
        return next(iter(self.arms.values()))

    def value(self, arm: Arm) -> float | None:
        measurement = self.arms.get(arm)
        return measurement.value if measurement else None

    @property
    def change(self) -> float | None:
        """Candidate over base, minus 1; None if that ratio has no meaning."""
        base, candidate = self.value("base"), self.value("candidate")
        return candidate / base - 1 if base and candidate is not None and base > 0 else None

    @property
    def note(self) -> str:
        """The metric's meaning, and the details of the arms' measurements, each once."""
        details = (m.detail for m in self.arms.values() if m.value is not None and m.detail)
        better = "higher" if self.any.higher_is_better else "lower"
        other = self.known.part == "other"
        name = f"{self.any.unit}, {better} is better" if other else self.known.label
        return "; ".join(dict.fromkeys((name, *details)))

    @property
    def workload(self) -> Workload | None:
        """Context length, new tokens and batch size, if the name has them."""
        return Workload.parse(self.subject)

    @property
    def tokens(self) -> int | None:
        """The context length, if the name has one."""
        return self.workload and self.workload.prompt_tokens

    @property
    def batch(self) -> int:
        return self.workload.batch if self.workload else 1


def rows(report: EvalReport) -> list[Row]:
    """One row per metric, in the recipe's order of families; unknown families come last."""
    return rows_of(report.measurements, report.presentation)


def rows_of(
    measurements: Iterable[Measurement], presentation: Mapping[str, Presentation]
) -> list[Row]:
    """As ``rows``, from the measurements of one evaluation."""
    order = list(presentation)
    by_metric: dict[str, dict[Arm, Measurement]] = {}
    for measurement in measurements:
        by_metric.setdefault(measurement.metric, {})[measurement.arm] = measurement
    all_rows = []
    for metric, arms in by_metric.items():
        family, _, subject = metric.partition(".")
        known = presentation.get(family) or Presentation(label=family)
        ordered = {arm: arms[arm] for arm in ARMS if arm in arms}
        row = Row(metric, family, subject, ordered, known)
        if known.part == "by_length" and row.tokens is None:  # it cannot be on a curve
            row = Row(metric, metric, "", ordered, Presentation(label=metric))
        all_rows.append(row)
    all_rows.sort(key=lambda r: order.index(r.family) if r.family in order else len(order))
    return all_rows


def families(rows: list[Row]) -> dict[str, list[Row]]:
    """The rows by family."""
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row.family, []).append(row)
    return grouped


def curves(rows: list[Row]) -> list[list[Row]]:
    """The rows grouped into curves over length, by family, batch size and number of new tokens."""
    grouped: dict[tuple[str, int, int], list[Row]] = {}
    for row in rows:
        if load := row.workload:
            grouped.setdefault((row.family, load.batch, load.new_tokens), []).append(row)
    return list(grouped.values())


def limit_of(row: Row, all_rows: list[Row], decision: GateDecision) -> float | None:
    """The gate's limit in the unit of ``row``'s values; None if no check has one.

    A limit on the ratio of two perplexities also applies to the metric ``perplexity_ratio``.
    """
    by_metric = {r.metric: r for r in all_rows}
    for check in decision.checks:
        judged = by_metric.get(check.metric)
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


def longest(rows: list[Row], family: str) -> Row | None:
    """The family's row at batch 1 with the longest context that both base and candidate have."""
    comparable = [
        r for r in rows if r.family == family and r.change is not None and r.tokens and r.batch == 1
    ]
    return max(comparable, key=lambda r: r.tokens or 0, default=None)
