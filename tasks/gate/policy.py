"""The gate: a report against a policy, rule by rule. What was not shown has failed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase

from tasks.contracts import Check, EvalReport, GateDecision, Measurement
from tasks.errors import InputError
from tasks.recipe import GatePolicy, GateRule

ROUNDING = 1e-12  # relative: 0.75 / 0.8333... must reach a limit of 0.9

WORDS = {
    "value": "value",
    "ratio": "ratio to the base",
    "difference": "difference from the base",
}

TOOTHLESS = Check(
    metric="*",
    rule="rules of severity fail >= 1",
    value=0,
    limit=1,
    margin=-1,
    passed=False,
    severity="fail",
    reason="the policy can only warn: a gate that cannot reject shows nothing",
)


def decide(report: EvalReport, policy: GatePolicy, now: datetime) -> GateDecision:
    """Apply every rule to every metric that it matches.

    Accepted if no check of severity ``fail`` failed; a policy without any gets one that fails. A
    rule fails where its metric is missing, was not measured in an arm that it needs, or has a base
    that gives no evidence. A value exactly at its limit passes.

    Args:
        now: aware of its time zone; the decision expires ``policy.expires_after_days`` later.

    Raises:
        InputError: a limit that is no finite number.
    """
    if now.tzinfo is None:
        raise ValueError("now must be aware of its time zone")
    for rule in policy.rules:
        if not math.isfinite(_limit(rule)):
            raise InputError(
                f"the limit of {rule.metric!r} is {_limit(rule)}",
                where="gate.rules",
                expected="a finite number",
            )
    checks = [check for rule in policy.rules for check in _apply(rule, report)]
    if not any(check.severity == "fail" for check in checks):
        checks.append(TOOTHLESS)
    return GateDecision(
        accepted=all(check.passed for check in checks if check.severity == "fail"),
        checks=tuple(checks),
        candidate_sha256=report.candidate_sha256,
        decided_at=_timestamp(now),
        expires_at=_timestamp(now + timedelta(days=policy.expires_after_days)),
    )


def _apply(rule: GateRule, report: EvalReport) -> Iterator[Check]:
    # names of the base as well: a metric that only the candidate lacks must not pass unseen
    names = dict.fromkeys(
        m.metric
        for m in report.measurements
        if m.arm != "control" and fnmatchcase(m.metric, rule.metric)
    )
    if not names:
        yield _check(rule, rule.metric, None, "no measurement has this name: nothing was shown")
    for name in names:
        value, problem = _compared(rule, report.find(name, "candidate"), report.find(name, "base"))
        yield _check(rule, name, value, problem)


def _compared(
    rule: GateRule, candidate: Measurement | None, base: Measurement | None
) -> tuple[float | None, str]:
    """The figure that the limit is for; or None, and why there is none."""
    if candidate is None or candidate.value is None:
        return None, "the candidate's value is missing: nothing was shown"
    if rule.compare == "value":
        return candidate.value, ""
    if base is None or base.value is None:
        return None, "the base's value is missing: there is nothing to compare with"
    if rule.compare == "difference":
        if base.value == 0 and candidate.higher_is_better:
            return None, "the base scores 0: there was nothing to lose, so nothing was shown"
        return candidate.value - base.value, ""
    if base.value == 0 or not math.isfinite(candidate.value / base.value):
        return None, f"the base's value is {base.value:g}: a ratio to it is no evidence"
    if base.value < 0 or candidate.value < 0:
        return None, "a ratio of negative values means nothing; compare by difference"
    return candidate.value / base.value, ""


def _check(rule: GateRule, metric: str, value: float | None, problem: str) -> Check:
    limit, is_floor = _limit(rule), rule.min is not None
    margin = None
    if value is not None:
        margin = value - limit if is_floor else limit - value
        if abs(margin) <= ROUNDING * max(1.0, abs(limit)):
            margin = 0.0
    passed = margin is not None and margin >= 0
    if value is not None:
        side = "inside" if passed else "outside"
        problem = (
            f"{WORDS[rule.compare]} {value:.6g} is {side} the limit "
            f"{'at least' if is_floor else 'at most'} {limit:g}, by {abs(margin or 0.0):.4g}"
        )
    return Check(
        metric=metric,
        rule=f"{WORDS[rule.compare]} {'>=' if is_floor else '<='} {limit:g}",
        value=value,
        limit=limit,
        margin=margin,
        passed=passed,
        severity=rule.severity,
        reason=problem,
    )


def _limit(rule: GateRule) -> float:
    limit = rule.min if rule.min is not None else rule.max
    assert limit is not None  # the recipe requires exactly one of them
    return limit


def _timestamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")
