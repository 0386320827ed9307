"""Turn the result of a rule into a check: passed, failed or inconclusive, with its reason."""

from __future__ import annotations

from collections.abc import Sequence

from layerwright.tasks.contracts.evaluation import Measurement
from layerwright.tasks.contracts.gate import Check
from layerwright.tasks.gate.comparison import Comparison
from layerwright.tasks.recipe.gate import GatePolicy, GateRule

ROUNDING = 1e-12  # relative; without it, 0.75 / 0.8333... is below a limit of 0.9
COMPARISONS = {
    "value": "value",
    "ratio": "ratio to the {arm}",
    "difference": "difference from the {arm}",
    "p_value": "p-value of a loss against the {arm}",
}


def make_check(
    rule: GateRule,
    metric: str,
    comparison: Comparison | None,
    problem: str,
    *,
    p_value: float | None,
    policy: GatePolicy,
) -> Check:
    """The check of one rule on one metric.

    Args:
        comparison: None if there is no evidence.
        problem: why there is no evidence. A rule against a champion that does not exist has
            neither comparison nor problem; its check passes.
        p_value: adjusted over all tests of the decision.
    """
    sign = ">=" if rule.is_floor else "<="
    level = f"{1 - policy.significance:.0%}".replace("%", " %")
    text = f"{_describe(rule)} {sign} {rule.limit:g}"
    text += f", {level} bound" if rule.on == "bound" else ""
    value = bound = detectable = None
    if comparison is not None:
        value = p_value if rule.compare == "p_value" else comparison.value
        bound, detectable = comparison.bound, comparison.detectable
    judged = bound if rule.on == "bound" else value
    margin = None if judged is None else _margin(rule, judged)
    no_champion = comparison is None and not problem
    passed = no_champion or (margin is not None and margin >= 0)
    needs_items = rule.on == "bound" or rule.compare == "p_value"
    refuted = p_value is not None and p_value < policy.significance
    if comparison is None:
        reason = problem or "there is no champion yet, so there is nothing to compare with"
    else:
        reason = _reason(rule, comparison, p_value, policy)
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
        items=comparison.items if comparison else 0,
        detectable=detectable,
        inconclusive=needs_items and comparison is not None and not passed and not refuted,
    )


def missing_reason(arm: str, measurement: Measurement | None) -> str:
    """The reason of a check whose arm has no value."""
    if measurement and measurement.detail:
        why = measurement.detail
    elif arm == "candidate":
        why = "it was not measured"
    else:
        why = "there is nothing to compare with"
    return f"the {arm}'s value is missing: {why}"


def no_evidence_check(checks: Sequence[Check]) -> Check:
    """The check that rejects a candidate for which no rule of severity ``fail`` passed on evidence.

    Without it, a policy of warnings, waived rules and rules against a missing champion would
    accept everything.
    """
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
        reason="no rule passed on evidence: each one was waived or had no champion to compare with"
        if waived or any(check.severity == "fail" for check in checks)
        else "the policy has no rule of severity fail, so it cannot reject a candidate",
    )


def _describe(rule: GateRule) -> str:
    """``mean ratio to the base, positions 512-*``."""
    text = COMPARISONS[rule.compare].format(arm=rule.arm)
    text = f"mean {text}" if rule.across == "mean" else text
    return f"{text}, {rule.slice}" if rule.slice else text


def _margin(rule: GateRule, judged: float) -> float:
    margin = judged - rule.limit if rule.is_floor else rule.limit - judged
    return 0.0 if abs(margin) <= ROUNDING * max(1.0, abs(rule.limit)) else margin


def _reason(
    rule: GateRule, comparison: Comparison, p_value: float | None, policy: GatePolicy
) -> str:
    limit = f"the limit ({'at least' if rule.is_floor else 'at most'} {rule.limit:g})"
    few = f"too few items: {comparison.items}, at least {policy.min_items} are needed"
    if rule.compare == "p_value":
        if p_value is None:
            return few
        loss = "no significant loss" if p_value >= rule.limit else "a significant loss"
        return f"{loss}: adjusted p = {p_value:.3g} on {comparison.items} items"
    text = f"{_describe(rule)} {comparison.value:.6g}"
    if rule.on == "value":
        side = "inside" if _margin(rule, comparison.value) >= 0 else "outside"
        return f"{text} is {side} {limit} by {abs(_margin(rule, comparison.value)):.4g}"
    if not comparison.items:
        return f"{text}: there are no per-item results"
    if comparison.bound is None:
        return f"{text}: {few}" if comparison.items < policy.min_items else f"{text}: no bound"
    text += f", bound {comparison.bound:.4g} on {comparison.items} items"
    if _margin(rule, comparison.bound) >= 0:
        return f"{text}: inside {limit}"
    if p_value is not None and p_value < policy.significance:
        return f"{text}: outside {limit}, adjusted p = {p_value:.3g}"
    text += f": inconclusive for {limit}"
    if comparison.best is not None and _margin(rule, comparison.best) < 0:
        text += f"; this number of items cannot show more than {comparison.best:.4g}"
    elif comparison.detectable is not None:
        text += f"; this number of items shows a change of {comparison.detectable:.3g} or more"
    return text
