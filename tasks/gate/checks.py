"""A finding put into words: passed, failed or inconclusive, with value, limit, margin and power."""

from __future__ import annotations

from collections.abc import Sequence

from layerwright.tasks.contracts.evaluation import Measurement
from layerwright.tasks.contracts.gate import Check
from layerwright.tasks.gate.comparison import Comparison
from layerwright.tasks.recipe.gate import GatePolicy, GateRule

ROUNDING = 1e-12  # relative: 0.75 / 0.8333... must reach a limit of 0.9
WORDS = {
    "value": "value",
    "ratio": "ratio to the {arm}",
    "difference": "difference from the {arm}",
    "p_value": "p-value of a loss against the {arm}",
}


def check_of(
    rule: GateRule,
    metric: str,
    found: Comparison | None,
    problem: str,
    *,
    p_value: float | None,
    policy: GatePolicy,
) -> Check:
    """The check that a rule comes to on one metric.

    Args:
        found: None where nothing was shown, for ``problem``; a rule against a champion that does
            not exist has neither, and passes.
        p_value: adjusted over its family.
    """
    sign = ">=" if rule.is_floor else "<="
    level = f"{1 - policy.significance:.0%}".replace("%", " %")
    text = f"{words(rule)} {sign} {rule.limit:g}"
    text += f", {level} bound" if rule.on == "bound" else ""
    value = bound = detectable = None
    if found is not None:
        value = p_value if rule.compare == "p_value" else found.value
        bound, detectable = found.bound, found.detectable
    judged = bound if rule.on == "bound" else value
    margin = None if judged is None else _margin(rule, judged)
    vacuous = found is None and not problem
    passed = vacuous or (margin is not None and margin >= 0)
    needs_items = rule.on == "bound" or rule.compare == "p_value"
    refuted = p_value is not None and p_value < policy.significance
    if found is None:
        reason = problem or "there is no champion yet: nothing to compare with"
    else:
        reason = _reason(rule, found, p_value, policy)
    return Check(
        metric=metric,
        rule=text,
        compare=rule.compare,
        value=value,
        limit=rule.limit,
        is_floor=rule.is_floor,
        margin=margin,
        passed=passed,
        severity=rule.severity,
        reason=reason,
        arm=rule.arm,
        slice=rule.slice,
        bound=bound,
        p_value=p_value if needs_items else None,
        items=found.items if found else 0,
        detectable=detectable,
        inconclusive=needs_items and found is not None and not passed and not refuted,
    )


def words(rule: GateRule) -> str:
    """``mean ratio to the base, positions 512-*``."""
    text = WORDS[rule.compare].format(arm=rule.arm)
    text = f"mean {text}" if rule.across == "mean" else text
    return f"{text}, {rule.slice}" if rule.slice else text


def unmeasured(arm: str, found: Measurement | None) -> str:
    """Why an arm's figure is no evidence."""
    why = found.detail if found and found.detail else "nothing was shown"
    if arm != "candidate" and not (found and found.detail):
        why = "there is nothing to compare with"
    return f"the {arm}'s value is missing: {why}"


def nothing_passed(checks: Sequence[Check]) -> Check:
    """What stands in the way of a policy under which nothing could have rejected."""
    waived = any(check.waiver for check in checks)
    return Check(
        metric="*",
        rule="rules of severity fail >= 1",
        compare="value",
        value=0,
        limit=1,
        is_floor=True,
        margin=-1,
        passed=False,
        severity="fail",
        reason="nothing passed but by a waiver or for want of a champion: nothing was shown"
        if waived or any(check.severity == "fail" for check in checks)
        else "the policy can only warn: a gate that cannot reject shows nothing",
    )


def _margin(rule: GateRule, judged: float) -> float:
    margin = judged - rule.limit if rule.is_floor else rule.limit - judged
    return 0.0 if abs(margin) <= ROUNDING * max(1.0, abs(rule.limit)) else margin


def _reason(rule: GateRule, found: Comparison, p_value: float | None, policy: GatePolicy) -> str:
    limit = f"the limit {'at least' if rule.is_floor else 'at most'} {rule.limit:g}"
    few = f"too few items: {found.items} of at least {policy.min_items}"
    if rule.compare == "p_value":
        if p_value is None:
            return few
        told = "no significant loss" if p_value >= rule.limit else "a significant loss"
        return f"{told}: p = {p_value:.3g} over the family, on {found.items} items"
    told = f"{words(rule)} {found.value:.6g}"
    if rule.on == "value":
        side = "inside" if _margin(rule, found.value) >= 0 else "outside"
        return f"{told} is {side} {limit}, by {abs(_margin(rule, found.value)):.4g}"
    if not found.items:
        return f"{told}: it has no per-item results"
    if found.bound is None:
        return f"{told}: {few}" if found.items < policy.min_items else f"{told}: no bound"
    side = "at least" if rule.is_floor else "at most"
    told += f", {side} {found.bound:.4g} by {found.items} items"
    if _margin(rule, found.bound) >= 0:
        return f"{told}: inside {limit}"
    if p_value is not None and p_value < policy.significance:
        return f"{told}: outside {limit}, p = {p_value:.3g} over the family"
    told += f": {limit} is neither shown nor refuted"
    if found.best is not None and _margin(rule, found.best) < 0:
        told += f", and so few items cannot show more than {found.best:.4g}"
    elif found.detectable is not None:
        told += f"; they would show a change of {found.detectable:.3g}"
    return told
