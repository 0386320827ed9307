"""Turn the result of a rule into a check: passed, failed or inconclusive, with its reason."""

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
        problem: why there is no comparison. A rule against a champion that does not exist has
            neither comparison nor problem; its check passes.
        p_value: adjusted over all tests of the decision.
    """
    level = f"{1 - policy.significance:.0%}".replace("%", " %")
    text = f"{_describe(rule)} {'>=' if rule.is_floor else '<='} {rule.limit:g}"
    text += f", {level} bound" if rule.on == "bound" else ""
    value = bound = detectable = None
    reason = problem or "there is no champion yet, so there is nothing to compare with"
    if comparison is not None:
        value = p_value if rule.compare == "p_value" else comparison.value
        bound, detectable = comparison.bound, comparison.detectable
        reason = _reason(rule, comparison, p_value, policy)
    judged = bound if rule.on == "bound" else value
    margin = None if judged is None else _margin(rule, judged)
    passed = (margin is not None and margin >= 0) or (comparison is None and not problem)
    needs_items = rule.on == "bound" or rule.compare == "p_value"
    refuted = p_value is not None and p_value < policy.significance
    return Check(
        **rule.model_dump(include={"compare", "severity", "arm", "slice"}),
        metric=metric,
        rule=text,
        value=value,
        limit=rule.limit,
        is_floor=rule.is_floor,
        margin=margin,
        passed=passed,
        reason=reason,
        bound=bound,
        p_value=p_value if needs_items else None,
        items=comparison.items if comparison else 0,
        detectable=detectable,
        inconclusive=needs_items and comparison is not None and not passed and not refuted,
    )


def count_check(metric: str, what: str, count: int, needed: int, reason: str) -> Check:
    """The check that there are enough measurements or rules, judged by their count."""
    return Check(
        metric=metric,
        rule=f"{what} >= {needed}",
        compare="value",
        value=count,
        limit=needed,
        is_floor=True,
        margin=count - needed,
        passed=count >= needed,
        severity="fail",
        reason=reason,
    )


def missing_reason(arm: str, measurement: Measurement | None) -> str:
    """The reason of a check whose arm has no value."""
    why = "it was not measured" if arm == "candidate" else "there is nothing to compare with"
    detail = measurement.detail if measurement else ""
    return f"the {arm}'s value is missing: {detail or why}"


def no_evidence_check(checks: Sequence[Check]) -> Check:
    """The check that rejects a candidate for which no rule of severity ``fail`` passed on evidence.

    Without it, a policy of warnings, waived rules and rules against a missing champion would
    accept everything.
    """
    reason = "the policy has no rule of severity fail, so it cannot reject a candidate"
    if any(check.waiver or check.severity == "fail" for check in checks):
        reason = (
            "no rule passed on evidence: each one was waived or had no champion to compare with"
        )
    return count_check("*", "rules of severity fail", 0, 1, reason)


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
