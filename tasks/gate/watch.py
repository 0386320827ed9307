"""Raise an alarm for each figure of a registered version that leaves its band.

An alarm does not change the gate's decision.
"""

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

    A rule against the champion does nothing if the report has no champion. ``registered``: the
    candidate's figures at its registration, by metric.
    """
    return tuple(alarm for rule in rules for alarm in _alarms(report, rule, registered))


def _alarms(
    report: EvalReport, rule: WatchRule, registered: Mapping[str, float]
) -> Iterator[Alarm]:
    if rule.against == "champion" and "champion" not in report.arms:
        return
    own = report.by_arm("candidate")
    known = registered if rule.against == "registered" else report.by_arm(rule.against)
    names = [name for name in own if fnmatchcase(name, rule.metric)]
    for name in names or [rule.metric]:
        value, reference, ratio = own.get(name), known.get(name), None
        if not names:
            reason = "no measurement matches this name"
        elif value is None or reference is None:
            missing = "version's own figure" if value is None else rule.reference
            reason = f"the {missing} is missing"
        elif not math.isfinite(ratio := value / reference if reference else math.nan):
            ratio, reason = None, f"the ratio to {reference:g} is not finite"
        elif rule.min_ratio is not None and ratio < rule.min_ratio:
            reason = f"below {rule.min_ratio:g}"
        elif rule.max_ratio is not None and ratio > rule.max_ratio:
            reason = f"above {rule.max_ratio:g}"
        else:
            continue
        band = rule.model_dump(include={"min_ratio", "max_ratio"}) | {"reference": rule.reference}
        yield Alarm(metric=name, value=value, ratio=ratio, reason=reason, **band)
