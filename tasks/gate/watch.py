"""Raise an alarm for each figure of a registered version that leaves its band.

An alarm does not change the gate's decision.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase

from layerwright.tasks.contracts.evaluation import EvalReport
from layerwright.tasks.contracts.requalification import Alarm
from layerwright.tasks.recipe.gate import WatchRule


def find_alarms(
    report: EvalReport, rules: Iterable[WatchRule], registered: Mapping[str, float]
) -> tuple[Alarm, ...]:
    """An alarm for each figure of the candidate that is outside its band or cannot be compared.

    A rule against the champion does nothing if the report has no champion.

    Args:
        registered: the candidate's figures at its registration, by metric.
    """
    return tuple(alarm for rule in rules for alarm in _alarms(report, rule, registered))


def _alarms(
    report: EvalReport, rule: WatchRule, registered: Mapping[str, float]
) -> Iterator[Alarm]:
    if rule.against == "champion" and "champion" not in report.arms:
        return
    names = [
        m.metric
        for m in report.measurements
        if m.arm == "candidate" and fnmatchcase(m.metric, rule.metric)
    ]
    if not names:
        yield _alarm(rule, rule.metric, None, None, "no measurement matches this name")
    for name in names:
        value = report.value(name, "candidate")
        reference = (
            registered.get(name)
            if rule.against == "registered"
            else report.value(name, rule.against)
        )
        if value is None or reference is None:
            missing = "version's own figure" if value is None else rule.reference
            yield _alarm(rule, name, value, None, f"the {missing} is missing")
            continue
        ratio = value / reference if reference else math.nan
        if not math.isfinite(ratio):
            yield _alarm(rule, name, value, None, f"the ratio to {reference:g} is not finite")
        elif rule.min_ratio is not None and ratio < rule.min_ratio:
            yield _alarm(rule, name, value, ratio, f"below {rule.min_ratio:g}")
        elif rule.max_ratio is not None and ratio > rule.max_ratio:
            yield _alarm(rule, name, value, ratio, f"above {rule.max_ratio:g}")


def _alarm(
    rule: WatchRule, metric: str, value: float | None, ratio: float | None, reason: str
) -> Alarm:
    return Alarm(
        metric=metric,
        reference=rule.reference,
        value=value,
        ratio=ratio,
        min_ratio=rule.min_ratio,
        max_ratio=rule.max_ratio,
        reason=reason,
    )
