"""The gate: what was not shown has failed, and every limit bites."""

import math
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from layerwright.tasks.contracts.evaluation import EvalReport, Measurement
from layerwright.tasks.contracts.gate import GateDecision
from layerwright.tasks.gate.policy import decide
from layerwright.tasks.recipe.gate import GatePolicy, GateRule

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
RULES = (
    GateRule(metric="kv_bytes.8192", max=0.6),
    GateRule(metric="perplexity.*", max=1.05),
    GateRule(metric="top1_agreement", compare="value", min=0.85),
    GateRule(metric="recall", min=0.9),
    GateRule(metric="speed", min=1.0, severity="warn"),
)
BASE = {"kv_bytes.8192": 1000.0, "perplexity.a": 20.0, "perplexity.b": 10.0, "recall": 0.9}
CANDIDATE = {
    "kv_bytes.8192": 580.0,
    "perplexity.a": 20.4,
    "perplexity.b": 10.1,
    "top1_agreement": 0.93,
    "recall": 0.85,
}
SPEED = {"base": {"speed": 10.0}, "candidate": {"speed": 8.0}}


def report(base=None, candidate=None, control=None) -> EvalReport:
    arms = {
        "base": BASE | SPEED["base"] if base is None else base,
        "candidate": CANDIDATE | SPEED["candidate"] if candidate is None else candidate,
        "control": control or {},
    }
    return EvalReport(
        base_sha256="b" * 64,
        candidate_sha256="c" * 64,
        device="cpu",
        measurements=tuple(
            Measurement(
                metric=name,
                arm=arm,
                value=value,
                unit="",
                higher_is_better=name in ("recall", "speed", "top1_agreement"),
            )
            for arm, values in arms.items()
            for name, value in values.items()
        ),
    )


def judge(of: EvalReport, *rules: GateRule) -> GateDecision:
    return decide(of, (), GatePolicy(rules=rules or RULES), NOW)


def test_all_inside_is_accepted_with_every_check_listed() -> None:
    decision = judge(report())
    assert decision.accepted
    assert decision.candidate_sha256 == "c" * 64
    by_metric = {check.metric: check for check in decision.checks}
    assert list(by_metric) == [
        "kv_bytes.8192", "perplexity.a", "perplexity.b", "top1_agreement", "recall", "speed",
    ]  # fmt: skip
    kv = by_metric["kv_bytes.8192"]
    assert (kv.value, kv.limit, kv.rule) == (0.58, 0.6, "ratio to the base <= 0.6")
    assert kv.margin == pytest.approx(0.02)
    assert kv.reason == "ratio to the base 0.58 is inside the limit (at most 0.6) by 0.02"
    assert by_metric["top1_agreement"].margin == pytest.approx(0.08)


def test_a_warning_fails_and_does_not_reject() -> None:
    speed = judge(report()).checks[-1]
    assert (speed.passed, speed.severity) == (False, "warn")
    assert speed.reason == "ratio to the base 0.8 is outside the limit (at least 1) by 0.2"


def test_the_decision_expires() -> None:
    policy = GatePolicy(rules=RULES, expires_after_days=1.5)
    elsewhere = NOW.astimezone(timezone(timedelta(hours=-7)))
    decision = decide(report(), (), policy, elsewhere)
    assert decision.decided_at == "2026-11-23T12:00:00+00:00"
    assert decision.expires_at == "2026-11-25T00:00:00+00:00"
    with pytest.raises(ValueError, match="time zone"):
        decide(report(), (), policy, NOW.replace(tzinfo=None))


def test_the_decision_survives_json() -> None:
    decision = judge(report(candidate={}))
    assert GateDecision.model_validate_json(decision.model_dump_json()) == decision


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
@pytest.mark.parametrize("metric", ["kv_bytes.8192", "perplexity.b", "top1_agreement", "recall"])
def test_what_was_not_measured_fails(metric: str, value: float | None) -> None:
    decision = judge(report(candidate=CANDIDATE | {metric: value}))
    (failed,) = [c for c in decision.checks if not c.passed and c.severity == "fail"]
    assert not decision.accepted
    assert (failed.metric, failed.value, failed.margin) == (metric, None, None)
    assert "the candidate's value is missing" in failed.reason


@pytest.mark.parametrize("metric", list(BASE))
def test_a_base_that_was_not_measured_fails(metric: str) -> None:
    for base in (BASE | {metric: None}, {k: v for k, v in BASE.items() if k != metric}):
        decision = judge(report(base=base))
        assert not decision.accepted
        assert any("the base's value is missing" in c.reason for c in decision.checks)


def test_a_metric_that_only_the_candidate_lacks_does_not_slip_through_a_glob() -> None:
    candidate = {k: v for k, v in CANDIDATE.items() if k != "perplexity.b"}
    decision = judge(report(candidate=candidate), GateRule(metric="perplexity.*", max=1.05))
    assert [(c.metric, c.passed) for c in decision.checks] == [
        ("perplexity.a", True),
        ("perplexity.b", False),
    ]
    assert not decision.accepted


@pytest.mark.parametrize("metric", ["perplexity", "Recall", "recall.*", "control_only"])
def test_a_rule_that_matches_nothing_fails(metric: str) -> None:
    decision = judge(report(control={"control_only": 1.0}), GateRule(metric=metric, max=9))
    assert not decision.accepted
    assert decision.checks[0].reason == "no measurement matches this name"


@pytest.mark.parametrize("compare", ["ratio", "difference"])
def test_a_base_that_scores_nothing_is_no_evidence(compare: str) -> None:
    of = report(base={"recall": 0.0}, candidate={"recall": 0.0})
    decision = judge(of, GateRule(metric="recall", compare=compare, min=-1))
    assert not decision.accepted
    assert "evidence" in decision.checks[0].reason


def test_a_ratio_of_negative_values_means_nothing() -> None:
    # -0.9 / -0.3 = 3: a key log-probability that fell to a third would pass as tripled
    of = report(base={"key": -0.3}, candidate={"key": -0.9})
    assert not judge(of, GateRule(metric="key", min=0.9)).accepted
    assert not judge(of, GateRule(metric="key", compare="difference", min=-0.5)).accepted
    assert judge(of, GateRule(metric="key", compare="difference", min=-0.7)).accepted


def test_a_ratio_too_large_for_a_number_fails() -> None:
    of = report(base={"recall": 5e-324}, candidate={"recall": 0.5})
    assert not judge(of, GateRule(metric="recall", min=0.9)).accepted


def test_a_policy_that_can_only_warn_rejects() -> None:
    decision = judge(report(), GateRule(metric="recall", min=0.1, severity="warn"))
    assert not decision.accepted
    assert "cannot reject" in decision.checks[-1].reason


def test_the_worst_of_several_rules_decides() -> None:
    loose, tight = GateRule(metric="recall", min=0.5), GateRule(metric="recall", min=0.99)
    assert [c.passed for c in judge(report(), loose, tight).checks] == [True, False]
    assert not judge(report(), loose, tight).accepted


@pytest.mark.parametrize("limit", [math.nan, math.inf])
def test_a_limit_that_is_no_number_is_refused(limit: float) -> None:
    with pytest.raises(ValidationError, match="finite number"):
        GateRule(metric="recall", max=limit)


@pytest.mark.parametrize(("hits", "of", "base_hits"), [(27, 36, 30), (9, 12, 10), (63, 80, 70)])
def test_rounding_does_not_fail_a_value_exactly_at_its_limit(hits, of, base_hits) -> None:
    measured = report(base={"recall": base_hits / of}, candidate={"recall": hits / of})
    (check,) = judge(measured, GateRule(metric="recall", min=0.9)).checks
    assert check.passed
    assert check.margin == 0


positive = st.floats(1e-3, 1e6)


@given(
    value=positive,
    base=positive,
    compare=st.sampled_from(["value", "ratio", "difference"]),
    bound=st.sampled_from(["min", "max"]),
    step=st.floats(1e-6, 10),
)
def test_a_limit_at_the_value_passes_and_a_tighter_one_rejects(
    value, base, compare, bound, step
) -> None:
    of = report(base={"m": base}, candidate={"m": value})
    measured = {"value": value, "ratio": value / base, "difference": value - base}[compare]

    def at(limit: float) -> GateDecision:
        return judge(of, GateRule(metric="m", compare=compare, **{bound: limit}))

    tighter = step * max(1.0, abs(measured)) * (1 if bound == "min" else -1)
    assert at(measured).accepted
    assert at(measured - tighter).accepted
    rejected = at(measured + tighter)
    assert not rejected.accepted
    assert rejected.checks[0].margin == pytest.approx(-abs(tighter), rel=1e-3)


@given(
    index=st.sampled_from(range(4)),
    step=st.floats(1e-6, 0.5),
)
def test_tightening_any_one_limit_past_the_measured_value_rejects(index: int, step: float) -> None:
    rules = list(RULES)
    rule = rules[index]
    accepted = judge(report())
    values = [c.value for c in accepted.checks if c.rule.endswith(f"{rule.min or rule.max:g}")]
    if rule.min is not None:
        rules[index] = rule.model_copy(update={"min": min(values) * (1 + step)})
    else:
        rules[index] = rule.model_copy(update={"max": max(values) * (1 - step)})
    assert accepted.accepted
    assert not judge(report(), *rules).accepted
